package explain

// The states of the side that closes second.

func closeWait() Topic {
	return Topic{
		Name:    "CLOSE_WAIT",
		Aliases: []string{"CLOSE-WAIT"},
		Summary: "The peer has closed; the application on this side has not.",
		Meaning: "The peer's FIN has arrived and is acknowledged, and the application reads end of file. " +
			"It may still send; the connection now waits for the application to close. " +
			"The kernel sets no time limit: the state lasts until the application closes or the connection breaks.",
		Normal: "It lasts milliseconds, until the application notices the end of file and closes. " +
			"It lasts longer only while the application sends an answer after the peer has finished its request.",
		Remedy: "When it piles up, an application does not close: no sysctl helps, and the descriptors run out in the end. " +
			"`ss -tanp state close-wait`, run as root, names the process; entries without one were never accepted, so look at the accept loop of the listener on that port. " +
			"Look in the code for a read that returns 0 without a close() after it, for error paths that forget the socket, " +
			"and for pools that keep idle connections without checking them. " +
			"A restart of the process clears them until they pile up again; a higher limit on descriptors only delays the failure. " +
			"`ss -K` ends the connection but does not free the descriptor.",
		Transitions: []string{
			"ESTABLISHED -> CLOSE_WAIT: the peer closed first",
			"CLOSE_WAIT -> LAST_ACK: this side closed as well",
			"CLOSE_WAIT -> CLOSE: a reset (EPIPE), a timeout, or close() with data unread",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.6",
			"net/ipv4/tcp_input.c tcp_fin(), tcp_reset()",
			"net/ipv4/tcp.c __tcp_close()",
		},
	}
}

func lastAck() Topic {
	return Topic{
		Name:    "LAST_ACK",
		Aliases: []string{"LAST-ACK"},
		Summary: "The peer closed first, this side has closed too and waits for the last acknowledgement.",
		Meaning: "The application closed after the peer, and the kernel sends the remaining data and then the FIN. " +
			"The acknowledgement of that FIN ends the connection. " +
			"No TIME_WAIT follows on this side; the peer has the TIME_WAIT.",
		Normal: "It lasts about one round trip. " +
			"A few at any moment are normal where peers close first.",
		Remedy: "The peer, or the path to it, no longer answers: typically it went away without a reset, " +
			"or a firewall or load balancer has forgotten the connection and drops the FIN. " +
			"`ss -tano state last-ack` shows the peers, the unacknowledged bytes in Send-Q and the retransmission timer. " +
			"The kernel gives up an orphan without an answer after net.ipv4.tcp_orphan_retries retransmissions; the default of 0 means 8, which take more than 100 seconds. " +
			"A lower number frees them sooner.",
		Transitions: []string{
			"CLOSE_WAIT -> LAST_ACK: this side closed second",
			"LAST_ACK -> CLOSE: the peer acknowledged the FIN, a reset came, or the kernel gave up",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.6",
			"net/ipv4/tcp.c __tcp_close()",
			"net/ipv4/tcp_input.c tcp_rcv_state_process()",
			"net/ipv4/tcp_timer.c tcp_orphan_retries()",
		},
	}
}
