package explain

// The states of the side that closes second.

func closeWait() Topic {
	return Topic{
		Name:    "CLOSE_WAIT",
		Aliases: []string{"CLOSE-WAIT"},
		Summary: "The peer has closed; the application on this side has not.",
		Meaning: "The peer's FIN has arrived and is acknowledged, and the application reads end of file. " +
			"It may still send; the connection now waits for the application to close. " +
			"The kernel has no time limit for that: the state lasts until the application acts or the connection breaks.",
		Normal: "Milliseconds, while the application notices the end of file and closes. " +
			"Longer is normal only where an answer is still being sent after the peer has finished its request.",
		Remedy: "When it piles up, an application does not close: no sysctl helps, and the descriptors run out in the end. " +
			"`ss -tanp state close-wait`, run as root, names the process; entries without one were never accepted, so look at the accept loop of the listener on that port. " +
			"Look in the code for a read that returned 0 and did not lead to close(), for error paths that forget the socket, " +
			"and for pools that keep idle connections without checking them. " +
			"Restarting the process clears them until the cause is fixed; a higher limit on descriptors only buys time. " +
			"`ss -K` ends the connection but leaves the descriptor leaked.",
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
		Summary: "The peer closed first, this side has closed too, and the last acknowledgement is awaited.",
		Meaning: "The application has closed after the peer, and the kernel sends what is left and then its FIN. " +
			"The acknowledgement of that FIN ends the connection. " +
			"No TIME_WAIT follows on this side; the peer has it.",
		Normal: "It lasts about one round trip. " +
			"A few at any moment are normal wherever peers close first.",
		Remedy: "The peer, or the path to it, no longer answers: typically it went away without a reset, " +
			"or a firewall or load balancer has forgotten the connection and drops the FIN. " +
			"`ss -tano state last-ack` shows the peers, what is unsent in Send-Q and the retransmission timer. " +
			"An orphan that gets no answer is given up after net.ipv4.tcp_orphan_retries repetitions, where the default of 0 counts as 8 and takes more than 100 seconds; " +
			"a lower number frees them sooner.",
		Transitions: []string{
			"CLOSE_WAIT -> LAST_ACK: this side closed second",
			"LAST_ACK -> CLOSE: the FIN was acknowledged, a reset came, or the kernel gave up",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.6",
			"net/ipv4/tcp.c __tcp_close()",
			"net/ipv4/tcp_input.c tcp_rcv_state_process()",
			"net/ipv4/tcp_timer.c tcp_orphan_retries()",
		},
	}
}
