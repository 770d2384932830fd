package explain

// The states up to a working connection, and the one without any connection.

func closed() Topic {
	return Topic{
		Name:    "CLOSE",
		Aliases: []string{"CLOSED", "UNCONN"},
		Summary: "No connection: where every socket begins and ends.",
		Meaning: "A socket in CLOSE has no connection and does not listen. " +
			"A new socket is in CLOSE without any record; the first record shows it leaving. " +
			"A record with new_state CLOSE is the end of a connection, and its error says how it ended: none for an orderly end, " +
			"but also for one that this side cut short with a reset. " +
			"Where the kernel reports CLOSE but leaves a TIME_WAIT behind, tcpshift shows TIME_WAIT and keeps CLOSE in kernel_new_state.",
		Normal: "Every connection ends here or in TIME_WAIT, so these records are as frequent as the connections themselves. " +
			"ECONNREFUSED on the way from SYN_SENT means that the other host answered and nobody listens there. " +
			"A single ECONNRESET or EPIPE is a peer that hung up without ceremony.",
		Remedy: "Sockets that stay in CLOSE are descriptors that somebody opened and never used or never closed. " +
			"`ss` cannot list them unless they are bound (see BOUND_INACTIVE); look with `lsof -nP -p PID`, where they read \"protocol: TCP\". " +
			"In /proc/net/sockstat they are part of the distance between alloc and inuse, where alloc counts the whole host. " +
			"Many ends with ETIMEDOUT point at the network or a dead peer, and many with ECONNRESET at a peer that crashes, restarts or sheds load. " +
			"SYN_SENT -> CLOSE without a local port and without an error means that no ephemeral port was free.",
		Transitions: []string{
			"CLOSE -> SYN_SENT: connect()",
			"CLOSE -> LISTEN: listen()",
			"LAST_ACK -> CLOSE: the orderly end of the side that closed second",
			"SYN_SENT -> CLOSE: the connect failed; the error says why",
			"ESTABLISHED -> CLOSE: a reset, a timeout or an abort",
			"LISTEN -> CLOSE: the listener was closed",
		},
		Sources: []string{
			"RFC 9293 section 3.3.2",
			"net/ipv4/tcp.c tcp_set_state(), tcp_done(), tcp_disconnect()",
			"net/ipv4/tcp_input.c tcp_reset()",
		},
	}
}

func listen() Topic {
	return Topic{
		Name:    "LISTEN",
		Aliases: []string{"LISTENING"},
		Summary: "A server's socket that waits for connections.",
		Meaning: "The application has called listen(), and the kernel completes handshakes on its behalf. " +
			"Each finished connection becomes a socket of its own and waits in the accept queue until accept() takes it. " +
			"The listener itself stays in LISTEN the whole time: a record LISTEN -> SYN_RECV belongs to the new socket, not to it.",
		Normal: "A listener stays for as long as its service runs. " +
			"Several on one port are normal where workers use SO_REUSEPORT.",
		Remedy: "It is not listeners that pile up but what they have not accepted: " +
			"in `ss -ltn` a listener's Recv-Q is the number waiting and its Send-Q the limit. " +
			"`nstat -az TcpExtListenOverflows TcpExtListenDrops` counts what was turned away so far. " +
			"The cure is an application that accepts faster: a blocked accept loop, too few workers, or no descriptors left are the usual causes. " +
			"For short bursts raise the backlog given to listen() together with net.core.somaxconn, which caps it; both take effect when the service calls listen() again. " +
			"A queue that never empties only gets longer that way.",
		Transitions: []string{
			"CLOSE -> LISTEN: listen()",
			"LISTEN -> SYN_RECV: a new socket for a completed handshake; the listener is unchanged",
			"LISTEN -> CLOSE: the listener was closed; connections that nobody had accepted are normally reset",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.10.7.2",
			"net/ipv4/inet_connection_sock.c inet_csk_listen_start(), inet_csk_listen_stop()",
			"listen(2), ss(8)",
		},
	}
}

func synSent() Topic {
	return Topic{
		Name:    "SYN_SENT",
		Aliases: []string{"SYN-SENT"},
		Summary: "A client has asked for a connection and has no answer yet.",
		Meaning: "connect() has been called, and the kernel sends a SYN and waits for the SYN-ACK. " +
			"The local port is chosen on the way, so the record of entry has none unless the application had bound one. " +
			"Without an answer the SYN is repeated, and connect() fails with ETIMEDOUT after a little more than two minutes; net.ipv4.tcp_syn_retries sets that time.",
		Normal: "It lasts one round trip. " +
			"Somewhat more than a second means that the first SYN or its answer was lost, since the first repetition comes after one second. " +
			"A refused connection leaves at once with ECONNREFUSED.",
		Remedy: "Group them by destination: `ss -Htan state syn-sent | awk '{print $4}' | sort | uniq -c | sort -n`. " +
			"One destination means that it is down, that a firewall drops the SYN silently, or that the server's accept queue is full; " +
			"many destinations point at this host's route, firewall or address translation. " +
			"Look for repetitions with `nstat -az TcpExtTCPSynRetrans`. " +
			"Give the application a connect timeout of its own and a limit on attempts in flight, rather than lowering net.ipv4.tcp_syn_retries for the whole host. " +
			"SYN_SENT -> CLOSE without a local port and without an error is another illness: the ephemeral ports for that destination are used up.",
		Transitions: []string{
			"CLOSE -> SYN_SENT: connect()",
			"SYN_SENT -> ESTABLISHED: the SYN-ACK came",
			"SYN_SENT -> SYN_RECV: both sides connected to each other at the same moment",
			"SYN_SENT -> CLOSE: refused, timed out, unreachable, given up, or no port was free",
		},
		Sources: []string{
			"RFC 9293 sections 3.5 and 3.10.7.3",
			"net/ipv4/tcp_ipv4.c tcp_v4_connect()",
			"net/ipv4/tcp_timer.c tcp_write_timeout()",
			"Documentation/networking/ip-sysctl.rst",
		},
	}
}

func synRecv() Topic {
	return Topic{
		Name:    "SYN_RECV",
		Aliases: []string{"SYN-RECEIVED", "SYN-RECV"},
		Summary: "In this stream: the handshake is done and the server's socket has just been made.",
		Meaning: "The textbook's SYN-RECEIVED is a server that has answered a SYN and waits for the final ACK. " +
			"Linux keeps that wait in a small request of its own, NEW_SYN_RECV, which does not pass this tracepoint and gives no record. " +
			"The full socket, and with it SYN_RECV, comes into being when the final ACK has arrived. " +
			"There are two exceptions: with TCP Fast Open it is made when the SYN arrives, and when two sides connect to each other at once the client's own socket passes through. " +
			"`ss` prints requests as SYN-RECV too, so what it lists is nearly always NEW_SYN_RECV.",
		Normal: "It lasts some microseconds, because the same packet carries the socket on to ESTABLISHED. " +
			"Up to Linux 6.12 the record of entry has no peer address yet; the next record has it.",
		Remedy: "Without TCP Fast Open, sockets cannot pile up in this state. " +
			"A long list in `ss -tan state syn-recv` is made of pending requests: see `tcpshift explain NEW_SYN_RECV`. " +
			"With Fast Open it is made of clients that never confirmed; net.ipv4.tcp_synack_retries bounds how long the kernel waits for them. " +
			"Many SYN_RECV -> CLOSE records mean that new sockets could not be set up: look for memory pressure in `dmesg` and at `nstat -az TcpExtListenDrops`.",
		Transitions: []string{
			"LISTEN -> SYN_RECV: the final ACK came and the socket was made from its listener",
			"SYN_SENT -> SYN_RECV: both sides connected to each other at the same moment",
			"SYN_RECV -> ESTABLISHED: the connection is open and waits for accept()",
			"SYN_RECV -> CLOSE: the new socket could not be set up, or was reset",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.5",
			"net/ipv4/inet_connection_sock.c inet_csk_clone_lock()",
			"net/ipv4/tcp_input.c tcp_rcv_state_process()",
			"net/ipv4/tcp_fastopen.c tcp_fastopen_create_child()",
		},
	}
}

func established() Topic {
	return Topic{
		Name:    "ESTABLISHED",
		Aliases: []string{"ESTAB"},
		Summary: "An open connection: data may flow both ways.",
		Meaning: "The handshake is done and neither side has closed. " +
			"On a server the connection counts as established before the application has accepted it. " +
			"TCP itself sets no limit on silence: an idle connection sends nothing and looks the same whether the peer is there or gone.",
		Normal: "This is where connections spend their lives. " +
			"Idle ones are normal in connection pools and for long polling.",
		Remedy: "See, as root, who holds them and how old their traffic is: `ss -tanpi state established`. " +
			"One process with ever more connections to one peer is a pool without an upper limit or a leak; " +
			"entries without a process wait in the accept queue, so look at LISTEN. " +
			"Connections to peers that are gone end only if somebody asks: the application has to set SO_KEEPALIVE, " +
			"and even then the defaults of net.ipv4.tcp_keepalive_time, tcp_keepalive_intvl and tcp_keepalive_probes take more than two hours, so set shorter ones for the socket. " +
			"With data under way net.ipv4.tcp_retries2 gives up after a quarter of an hour or more; TCP_USER_TIMEOUT shortens that for one socket.",
		Transitions: []string{
			"SYN_SENT -> ESTABLISHED: a client's connect() succeeded",
			"SYN_RECV -> ESTABLISHED: a server's new connection is open",
			"ESTABLISHED -> FIN_WAIT1: this side closed first",
			"ESTABLISHED -> CLOSE_WAIT: the peer closed first",
			"ESTABLISHED -> CLOSE: a reset, a timeout, or an abort on this side",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.8.4",
			"net/ipv4/tcp_timer.c tcp_keepalive_timer(), tcp_write_timeout()",
			"Documentation/networking/ip-sysctl.rst",
		},
	}
}
