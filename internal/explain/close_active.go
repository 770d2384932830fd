package explain

// The states of the side that closes first. CLOSING is among them: there
// both sides did.

func finWait1() Topic {
	return Topic{
		Name:    "FIN_WAIT1",
		Aliases: []string{"FIN-WAIT-1"},
		Summary: "This side has closed and waits for the peer to acknowledge that.",
		Meaning: "The application has closed the connection, or shut down its sending half, before the peer did. " +
			"Linux enters the state when the FIN is queued, so data that is still unsent goes out first. " +
			"After close() the socket has no process any more: it is an orphan, and the kernel finishes the work alone.",
		Normal: "It lasts about one round trip. " +
			"It is longer when much data was still waiting to be sent, or when the peer reads slowly.",
		Remedy: "The peer does not acknowledge, or does not read: `ss -tano state fin-wait-1` shows which. " +
			"timer:(on) with retransmissions means that the peer or the path is gone, and timer:(persist) that the peer has closed its receive window. " +
			"The kernel gives up an orphan that gets no answer after net.ipv4.tcp_orphan_retries repetitions, where the default of 0 counts as 8 and takes more than 100 seconds; " +
			"one with a closed window lasts a few minutes. " +
			"A lower number frees the first kind sooner at the price of cutting off peers on bad lines. " +
			"Orphans are counted in /proc/net/sockstat; past net.ipv4.tcp_max_orphans the kernel resets them and logs \"too many orphaned sockets\".",
		Transitions: []string{
			"ESTABLISHED -> FIN_WAIT1: this side closed first",
			"FIN_WAIT1 -> FIN_WAIT2: the peer acknowledged the FIN",
			"FIN_WAIT1 -> CLOSING: the peer had closed at the same time",
			"FIN_WAIT1 -> FIN_WAIT1: close() after shutdown(); nothing else changed",
			"FIN_WAIT1 -> CLOSE: reset, or given up without an answer",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.6",
			"net/ipv4/tcp.c __tcp_close(), tcp_shutdown()",
			"net/ipv4/tcp_timer.c tcp_orphan_retries(), tcp_probe_timer()",
		},
	}
}

func finWait2() Topic {
	return Topic{
		Name:    "FIN_WAIT2",
		Aliases: []string{"FIN-WAIT-2"},
		Summary: "This side has closed, the peer knows it, and the peer has not closed yet.",
		Meaning: "Our FIN is acknowledged and the peer's is still to come; until then the peer may go on sending. " +
			"There are two kinds. " +
			"If the application still holds the socket, after shutdown(), the state lasts as long as both want it to. " +
			"If the socket was closed it is an orphan and lasts net.ipv4.tcp_fin_timeout, 60 seconds by default. " +
			"The kernel moves an orphan into a small timewait socket: tcpshift shows that as TIME_WAIT with time_wait_substate FIN_WAIT2, and `ss` still prints FIN-WAIT-2.",
		Normal: "A round trip where the peer closes at once. " +
			"It is long by design where one side says \"that was my whole request\" with shutdown() and reads the answer.",
		Remedy: "Ask first which kind it is: `ss -tanpo state fin-wait-2` names the process of those still held and shows timer:(timewait) for most orphans. " +
			"For held ones the kernel sets no time limit: the application must close, or set a read timeout. " +
			"For orphans the peer is slow to close, and probably shows CLOSE_WAIT: fix it there. " +
			"Lowering net.ipv4.tcp_fin_timeout frees orphans sooner, and TCP_LINGER2 does so for one socket; neither touches the 60 seconds of TIME_WAIT.",
		Transitions: []string{
			"FIN_WAIT1 -> FIN_WAIT2: the peer acknowledged our FIN",
			"FIN_WAIT2 -> TIME_WAIT: the peer's FIN came; or, with time_wait_substate FIN_WAIT2, an orphan still waits for it",
			"FIN_WAIT2 -> FIN_WAIT2: close() after shutdown(); nothing else changed",
			"FIN_WAIT2 -> CLOSE: reset, data after close(), or no timewait socket could be made",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2, 3.6 and 3.6.1",
			"net/ipv4/tcp.c __tcp_close()",
			"net/ipv4/tcp_input.c tcp_rcv_state_process(), tcp_fin()",
			"net/ipv4/tcp_minisocks.c tcp_time_wait()",
		},
	}
}

func closing() Topic {
	return Topic{
		Name:    "CLOSING",
		Summary: "Both sides closed at the same moment, and our FIN is not acknowledged yet.",
		Meaning: "This side had sent its FIN when the peer's FIN arrived, and the two crossed on the way. " +
			"The peer's FIN is answered; what is missing is the acknowledgement of ours.",
		Normal: "It is rare and lasts less than a round trip. " +
			"Protocols in which both ends hang up after the same message show it now and then.",
		Remedy: "Many that stay mean that acknowledgements do not arrive: packet loss, or a firewall that forgets a connection at its first FIN. " +
			"`ss -tano state closing` shows the retransmission timer, and a packet capture on both ends shows who loses the packet. " +
			"An orphan is given up after net.ipv4.tcp_orphan_retries repetitions, so they do not stay for ever.",
		Transitions: []string{
			"FIN_WAIT1 -> CLOSING: the peer's FIN crossed ours",
			"CLOSING -> TIME_WAIT: our FIN was acknowledged",
			"CLOSING -> CLOSE: reset, given up, or no timewait socket could be made",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.6",
			"net/ipv4/tcp_input.c tcp_fin(), tcp_rcv_state_process()",
		},
	}
}

func timeWait() Topic {
	return Topic{
		Name:    "TIME_WAIT",
		Aliases: []string{"TIME-WAIT"},
		Summary: "The connection is over; its addresses and ports stay reserved for 60 seconds.",
		Meaning: "The side that closed first keeps a memory of the connection, to answer a repeated FIN and to keep late packets out of a new connection. " +
			"It always lasts 60 seconds, counted anew when a late packet of the connection arrives, and net.ipv4.tcp_fin_timeout does not change it. " +
			"It is a small socket of a few hundred bytes, without a process. " +
			"The kernel reports the change as CLOSE; tcpshift looks for the timewait socket and says TIME_WAIT, with CLOSE in kernel_new_state. " +
			"The end of a TIME_WAIT passes no tracepoint of this stream, so no record follows. " +
			"With time_wait_substate FIN_WAIT2 the peer's FIN is still awaited: see FIN_WAIT2.",
		Normal: "It is healthy, and the number follows the rate: 1,000 closes a second make 60,000 of them, and no more than that as long as the rate holds. " +
			"On the server's side they cost some memory and no ports, because they all share the listener's port. " +
			"A new SYN from the same client may take one over early.",
		Remedy: "Ask which side connected; only a client that also closes first spends its ephemeral ports, and only per destination: " +
			"`ss -Htan state time-wait | awk '{print $4}' | sort | uniq -c | sort -n` shows the busiest peers. " +
			"With the default net.ipv4.ip_local_port_range a client can sustain about 470 closes a second from one local address to one destination address and port. " +
			"The best cure is to reuse connections with a pool or HTTP keep-alive, then to let the other side close first, then more ports, source addresses or destinations. " +
			"net.ipv4.tcp_tw_reuse lets a new outgoing connection take over a TIME_WAIT after about a second if both sides use timestamps: the default 2 does so on loopback only, 1 everywhere. " +
			"Do not lower net.ipv4.tcp_max_tw_buckets, which drops the protection (TcpExtTCPTimeWaitOverflow counts that), and do not use SO_LINGER with 0 seconds, which throws away data still under way. " +
			"Old pages praise tcp_tw_recycle: it broke clients behind address translation and was removed in Linux 4.12.",
		Transitions: []string{
			"FIN_WAIT2 -> TIME_WAIT: the peer's FIN came; or, with time_wait_substate FIN_WAIT2, an orphan still waits for it",
			"CLOSING -> TIME_WAIT: both had closed at once and our FIN was acknowledged",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.6; RFC 6191",
			"include/net/tcp.h TCP_TIMEWAIT_LEN",
			"net/ipv4/tcp_minisocks.c tcp_time_wait(), tcp_timewait_state_process()",
			"net/ipv4/tcp_ipv4.c tcp_twsk_unique()",
			"Documentation/networking/ip-sysctl.rst",
		},
	}
}
