package explain

// The states of the side that closes first. CLOSING is here too: both sides close
// first.

func finWait1() Topic {
	return Topic{
		Name:    "FIN_WAIT1",
		Aliases: []string{"FIN-WAIT-1"},
		Summary: "This side has closed and waits for the acknowledgement of its FIN.",
		Meaning: "The application has closed the connection, or shut down its sending half, before the peer did. " +
			"Linux enters the state when it queues the FIN, so unsent data goes out first. " +
			"After close() no process has the socket: it is an orphan, and the kernel completes the close by itself.",
		Normal: "It lasts about one round trip. " +
			"It lasts longer when much data is still unsent, or when the peer reads slowly.",
		Remedy: "The peer does not acknowledge, or does not read: the timer in `ss -tano state fin-wait-1` distinguishes the two. " +
			"timer:(on) with retransmissions means that the peer or the path is gone; timer:(persist) means that the peer has closed its receive window. " +
			"The kernel gives up an orphan without an answer after net.ipv4.tcp_orphan_retries retransmissions; the default of 0 means 8, which take more than 100 seconds. " +
			"An orphan with a closed window lasts a few minutes. " +
			"A lower number frees orphans without an answer sooner, but cuts off peers on bad lines. " +
			"/proc/net/sockstat counts orphans; beyond net.ipv4.tcp_max_orphans the kernel resets them and logs \"too many orphaned sockets\".",
		Transitions: []string{
			"ESTABLISHED -> FIN_WAIT1: this side closed first",
			"FIN_WAIT1 -> FIN_WAIT2: the peer acknowledged the FIN",
			"FIN_WAIT1 -> CLOSING: the peer closed at the same time",
			"FIN_WAIT1 -> FIN_WAIT1: close() after shutdown(); nothing else changed",
			"FIN_WAIT1 -> CLOSE: a reset, or the kernel gave up waiting for an answer",
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
		Summary: "This side has closed, the peer has acknowledged it, and the peer has not closed yet.",
		Meaning: "The peer has acknowledged the FIN of this side and may go on sending until it sends its own FIN. " +
			"There are two kinds. " +
			"If the application still has the socket open, after shutdown(), the state has no time limit. " +
			"If the application has closed the socket, it is an orphan and lasts net.ipv4.tcp_fin_timeout, 60 seconds by default. " +
			"The kernel moves an orphan into a small timewait socket: tcpshift shows that as TIME_WAIT with time_wait_substate FIN_WAIT2, and `ss` still prints FIN-WAIT-2.",
		Normal: "It lasts about one round trip if the peer closes at once. " +
			"It lasts longer by design where a client ends its request with shutdown() and then reads the answer.",
		Remedy: "Find out the kind first: `ss -tanpo state fin-wait-2` names the process of open sockets and shows timer:(timewait) for most orphans. " +
			"For open sockets the kernel sets no time limit: the application must close, or set a read timeout. " +
			"For orphans the peer is slow to close and probably shows CLOSE_WAIT: fix the peer. " +
			"A lower net.ipv4.tcp_fin_timeout frees orphans sooner, and TCP_LINGER2 does so for one socket; neither changes the 60 seconds of TIME_WAIT.",
		Transitions: []string{
			"FIN_WAIT1 -> FIN_WAIT2: the peer acknowledged the FIN",
			"FIN_WAIT2 -> TIME_WAIT: the peer's FIN came; or, with time_wait_substate FIN_WAIT2, an orphan still waits for it",
			"FIN_WAIT2 -> FIN_WAIT2: close() after shutdown(); nothing else changed",
			"FIN_WAIT2 -> CLOSE: a reset, data after close(), or no memory or place for a timewait socket",
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
		Summary: "Both sides closed at the same time, and the peer has not acknowledged the FIN of this side yet.",
		Meaning: "The two FINs crossed on the way: the peer's FIN arrived before the acknowledgement of this side's FIN. " +
			"This side has acknowledged the peer's FIN and waits for the acknowledgement of its own.",
		Normal: "It is rare and lasts less than a round trip. " +
			"It occurs now and then in protocols where both sides close after the same message.",
		Remedy: "If many stay, acknowledgements do not arrive: packets are lost, or a firewall forgets a connection at its first FIN. " +
			"`ss -tano state closing` shows the retransmission timer, and a packet capture at both ends shows where the packet is lost. " +
			"The kernel gives up an orphan after net.ipv4.tcp_orphan_retries retransmissions.",
		Transitions: []string{
			"FIN_WAIT1 -> CLOSING: the two FINs crossed",
			"CLOSING -> TIME_WAIT: the peer acknowledged the FIN",
			"CLOSING -> CLOSE: a reset, the kernel gave up, or no memory or place for a timewait socket",
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
		Summary: "The connection is closed; its addresses and ports stay reserved for 60 seconds.",
		Meaning: "The side that closed first remembers the connection, to answer a repeated FIN and to keep late packets out of a new connection. " +
			"It always lasts 60 seconds, which start again when a late packet of the connection arrives, unless a reset or a new SYN with the same ports ends it; net.ipv4.tcp_fin_timeout does not change it. " +
			"It is a small socket of a few hundred bytes that belongs to no process. " +
			"The kernel reports the transition as CLOSE; tcpshift finds the timewait socket and writes TIME_WAIT, with CLOSE in kernel_new_state. " +
			"Its end does not pass this tracepoint and gives no record, except with --time-wait-end. " +
			"With time_wait_substate FIN_WAIT2 the peer's FIN is still missing: see FIN_WAIT2.",
		Normal: "It is normal in any number, and the number follows the rate: 1,000 closes a second make 60,000 TIME_WAITs, and no more while the rate is constant. " +
			"On the server's side they cost some memory and no ports, because they all share the listener's port. " +
			"A new SYN from the same client may end a TIME_WAIT early.",
		Remedy: "Find out which side connected; only a client that also closes first occupies ephemeral ports, and only towards one destination: " +
			"`ss -Htan state time-wait | awk '{print $4}' | sort | uniq -c | sort -n` shows the busiest peers. " +
			"With the default net.ipv4.ip_local_port_range a client can sustain about 470 closes a second from one local address to one destination address and port. " +
			"It is best to reuse connections, with a pool or HTTP keep-alive; else let the other side close first; else add ports, source addresses or destinations. " +
			"net.ipv4.tcp_tw_reuse lets a new outgoing connection take over a TIME_WAIT after about a second if both sides use timestamps: the default 2 does so on loopback only, 1 everywhere. " +
			"Do not lower net.ipv4.tcp_max_tw_buckets, which drops the protection (TcpExtTCPTimeWaitOverflow counts that), and do not use SO_LINGER with 0 seconds, which discards data in flight. " +
			"Old pages recommend tcp_tw_recycle: it broke clients behind address translation and was removed in Linux 4.12.",
		Transitions: []string{
			"FIN_WAIT2 -> TIME_WAIT: the peer's FIN came; or, with time_wait_substate FIN_WAIT2, an orphan still waits for it",
			"CLOSING -> TIME_WAIT: both sides closed at once, and the peer acknowledged the FIN",
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
