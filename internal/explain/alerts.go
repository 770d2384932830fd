package explain

// Alerts returns a topic for each kind of alert, in the order of detect.Kinds. The
// caller may change the result.
func Alerts() []Topic {
	return []Topic{
		timeWaitStorm(),
		portExhaustion(),
		closeWaitLeak(),
		connectFailures(),
		finWait2Pileup(),
		resetBurst(),
		listenQueueFull(),
		alertsSuppressed(),
	}
}

func timeWaitStorm() Topic {
	return Topic{
		Name:    "time_wait_storm",
		Summary: "Short connections make TIME_WAITs faster than they expire, and will reach a limit.",
		Meaning: "Each connection that this side closes first leaves a TIME_WAIT for 60 seconds. " +
			"At a client the TIME_WAIT occupies a local port for that time, but only towards one destination: one local address, one peer address and one peer port. " +
			"With 28,232 ports, the default, a client can sustain 470 connections a second; at 471 a second connect() fails within a minute. " +
			"A server needs no ports for its TIME_WAITs, but each network namespace has an upper limit for those of clients and servers together, and its default depends on the host's memory. " +
			"capacity_kind names the limit, and exhaustion_in_s is the time until it is reached: from then on connect() fails, or the kernel closes without a TIME_WAIT. " +
			"The alert opens only if the plateau, which is the rate times 61 seconds (60, and 1 by the delay of the kernel's timers), exceeds the capacity, or if connects fail because of TIME_WAITs: `failures` counts these, and no other alert reports them.",
		Normal: "Any number of TIME_WAITs is normal while the plateau is below the capacity, and raises no alert. " +
			"A burst that fits raises no alert either, nor do connections that the peers close first, nor do most loads on loopback, where connect() by default may reuse a TIME_WAIT after a second.",
		Remedy: "Reuse connections, with HTTP keep-alive, a pool in the client, or one connection for each thread instead of one for each request; `service`, `comm` and the peer in the alert show which program to change. " +
			"Until then use more local or more peer addresses: each pair of addresses has the full range of ports. " +
			"Then widen the range, with `sysctl -w net.ipv4.ip_local_port_range=\"10240 60999\"`, which at most doubles the number. " +
			"net.ipv4.tcp_tw_reuse lets a new outgoing connection take over a TIME_WAIT after about a second if both sides use timestamps: the default 2 does so on loopback only, 1 everywhere. " +
			"At a server let the clients close first: give the server longer idle timeouts than its clients have. " +
			"Old pages recommend tcp_tw_recycle: it broke clients behind address translation and was removed in Linux 4.12.",
		Transitions: []string{
			"CLOSE -> SYN_SENT: the client opens one more connection",
			"FIN_WAIT2 -> TIME_WAIT: this side closed first, and its port stays occupied",
			"CLOSING -> TIME_WAIT: both sides closed at once, and the port stays occupied too",
		},
		Sources: []string{
			"docs/detection.md has the arithmetic",
			"include/net/tcp.h TCP_TIMEWAIT_LEN",
			"net/ipv4/inet_hashtables.c __inet_hash_connect()",
			"net/ipv4/tcp_ipv4.c tcp_twsk_unique()",
		},
	}
}

func portExhaustion() Topic {
	return Topic{
		Name:    "port_exhaustion",
		Summary: "A connect() found no free local port and failed with EADDRNOTAVAIL, and TIME_WAITs are not the reason; or bind() is going to take the last port.",
		Meaning: "Every port that connect() may choose is taken for this destination, most of them by open connections or because they were bound. " +
			"Programs report the error as \"cannot assign requested address\". " +
			"Where TIME_WAITs take at least half of the ports, `time_wait_storm` reports the failures instead. Other destinations are not affected, except by ports that were bound before connect(): these are taken for all of them. " +
			"An alert without a peer comes before these have taken the last port of the range: then bind() to port 0 fails with EADDRINUSE, too.",
		Normal: "It is never normal: the application got an error. " +
			"Only a port scanner or a load generator may cause it on purpose.",
		Remedy: "`cause` says how many ports open connections and TIME_WAITs use. " +
			"If open connections occupy most ports, the client opens too many to one destination or forgets to close them: `ss -tanp state established` shows their processes. " +
			"Reuse connections first, then use more local or peer addresses, then widen net.ipv4.ip_local_port_range. " +
			"Ports in net.ipv4.ip_local_reserved_ports are not available, nor are those within the range that listeners use or that programs bind before connect().",
		Transitions: []string{
			"SYN_SENT -> CLOSE: connect() failed at once; closed_by is no_port",
		},
		Sources: []string{
			"net/ipv4/tcp_ipv4.c tcp_v4_connect()",
			"net/ipv4/inet_hashtables.c __inet_hash_connect()",
		},
	}
}

func closeWaitLeak() Topic {
	return Topic{
		Name:    "close_wait_leak",
		Summary: "A process leaves a growing number of sockets in CLOSE_WAIT.",
		Meaning: "The peers closed these connections long ago, and the process has not closed its side. " +
			"Each socket occupies a file descriptor, so in the end accept(), connect() and open() fail with \"too many open files\". " +
			"By default the alert counts only sockets that have been in CLOSE_WAIT for 30 seconds, and it opens only while their number grows, " +
			"even if only by one in an hour.",
		Normal: "A server may stay in CLOSE_WAIT while it sends a long answer to a client that has shut down its sending side: " +
			"sockets on which the process still sends do not count. " +
			"A number that does not grow raises no alert.",
		Remedy: "`ss -tanp state close-wait`, run as root, lists the sockets of the process that the alert names. " +
			"Look in its code for a read that returns 0 without a close() after it, for error paths that forget the socket, and for pools that do not check idle connections. " +
			"A restart frees the descriptors for a while; no sysctl helps.",
		Transitions: []string{
			"ESTABLISHED -> CLOSE_WAIT: the peer closed first",
			"CLOSE_WAIT -> LAST_ACK: this side closed at last",
		},
		Sources: []string{
			"net/ipv4/tcp_input.c tcp_fin()",
		},
	}
}

func connectFailures() Topic {
	return Topic{
		Name:    "connect_failures",
		Summary: "At least half of the connects to one peer fail, at a high rate.",
		Meaning: "Within ten seconds at least half of the connects to one address and port failed, and by default at least fifty. " +
			"The peer or a firewall refused them, nothing answered, there is no route to the peer, or a bound local port has a connection to the peer already; " +
			"cause names the most frequent reason. " +
			"A connect() that the application gives up after a second or more counts as not answered; " +
			"one that it gives up sooner counts as failed only if no connect to the peer succeeds.",
		Normal: "A health check that fails once a second raises no alert, nor does a scan that tries each port once, or a client that races several connects and gives up all but one. " +
			"A service may refuse connections for some seconds while it restarts.",
		Remedy: "If they are refused, check that the service runs and listens on this port. " +
			"If they are not answered, check that the host is up, that no firewall drops the SYN, and with `ss -ltn` on the peer that the listener's Recv-Q is below its Send-Q. " +
			"In either case let clients wait longer after each attempt, by a partly random time, so that they do not all retry at once. " +
			"If their bound port is taken, let the kernel choose it: connect() without bind(), or with IP_BIND_ADDRESS_NO_PORT and port 0.",
		Transitions: []string{
			"SYN_SENT -> CLOSE: the attempt failed; error has the reason, or closed_by address_in_use",
		},
		Sources: []string{
			"net/ipv4/tcp_input.c tcp_reset()",
			"net/ipv4/tcp_timer.c tcp_write_err()",
		},
	}
}

func finWait2Pileup() Topic {
	return Topic{
		Name:    "fin_wait2_pileup",
		Summary: "This side closed many connections, and the peers do not close theirs.",
		Meaning: "The peers acknowledged the FIN of this side and do not send their own. " +
			"After close() the kernel keeps each connection as a small timewait socket for net.ipv4.tcp_fin_timeout, and its local port with it. " +
			"After shutdown() alone a process still has the socket, and the kernel sets no limit. " +
			"tcpshift counts these sockets in the kernel's table, and only after five seconds, because a peer may take a moment to close.",
		Normal: "Some are normal with peers that are slow or went away without a FIN. " +
			"Clients on bad networks cause them at a server all the time.",
		Remedy: "Look at the peer: its application probably leaves its sockets in CLOSE_WAIT, which `ss -tanp state close-wait` shows there. " +
			"Until that is fixed, a lower net.ipv4.tcp_fin_timeout frees timewait sockets sooner on this side. " +
			"It does not free sockets that a process still has: there the process must close them, after a timeout of its own.",
		Transitions: []string{
			"FIN_WAIT2 -> TIME_WAIT: time_wait_substate is FIN_WAIT2, so the peer's FIN is still missing",
		},
		Sources: []string{
			"net/ipv4/tcp_minisocks.c tcp_time_wait()",
		},
	}
}

func resetBurst() Topic {
	return Topic{
		Name:    "reset_burst",
		Summary: "Peers reset at least half of the connections to one endpoint, at a high rate.",
		Meaning: "Within ten seconds at least half of the connections that ended at this endpoint were reset, and by default at least a hundred. " +
			"A reset discards data in flight and unread data, so answers may be lost.",
		Normal: "Load balancers that check a port often end the check with a reset. " +
			"Browsers and scanners also reset connections, in smaller numbers.",
		Remedy: "Look at the peer: it crashes or restarts, closes with unread data, or sets a linger time of 0. " +
			"Or a firewall or load balancer between drops idle connections and answers with resets: make the idle timeout on this side shorter than that of the device. " +
			"received_bytes and duration_ns in the connection records show how much of each connection was done.",
		Transitions: []string{
			"ESTABLISHED -> CLOSE: a reset came; error is ECONNRESET",
			"CLOSE_WAIT -> CLOSE: a reset came after the peer's FIN; error is EPIPE",
		},
		Sources: []string{
			"net/ipv4/tcp_input.c tcp_reset()",
		},
	}
}

func listenQueueFull() Topic {
	return Topic{
		Name:    "listen_queue_full",
		Summary: "The accept queue of a listener is full, or no process accepts its connections.",
		Meaning: "The kernel completes the handshake of a connection by itself, and the connection waits in the queue of its listener until the process calls accept(). " +
			"The queue takes one connection more than the backlog that listen() has set, which is at most net.core.somaxconn. " +
			"While it is full the kernel drops new SYNs, and the last ACKs of handshakes: clients send them again after 1, 3 and 7 seconds, and see a slow server or a timeout. " +
			"No transition shows that, so tcpshift reads the listeners from the kernel, about once a second while something is wrong. " +
			"The alert opens if a queue overflows for ten seconds, or if connections have waited for more than 30 seconds. " +
			"occupancy is how many connections wait, capacity how many may wait, and drops how many segments this listener has dropped meanwhile; " +
			"with SO_REUSEPORT the counts are of those listeners only that overflow or whose connections wait.",
		Normal: "A queue that is full for a moment is normal when many clients connect at once, and raises no alert. " +
			"A process that has listened and waits for something before it accepts, such as a service that still starts, may leave connections waiting.",
		Remedy: "`ss -ltnp`, run as root, lists the listeners: Recv-Q is the length of the queue, Send-Q the backlog. " +
			"If no connection is accepted, the process is stopped, blocked, out of file descriptors or out of threads; its stack shows where, and a restart drops the queue. " +
			"If it accepts too slowly, call accept() in a thread of its own until the queue is empty, or start more processes with SO_REUSEPORT. " +
			"A longer backlog, in listen() and in net.core.somaxconn, helps only against bursts: it makes clients wait instead. " +
			"`nstat -az TcpExtListenOverflows TcpExtListenDrops` counts for the whole network namespace.",
		Transitions: []string{
			"CLOSE -> LISTEN: the process called listen(), and the queue is empty",
			"ESTABLISHED -> CLOSE_WAIT: a client gave up; without an owner that has accepted it, the connection still waits",
		},
		Sources: []string{
			"include/net/sock.h sk_acceptq_is_full()",
			"net/ipv4/tcp_input.c tcp_conn_request()",
			"net/ipv4/tcp_ipv4.c tcp_v4_syn_recv_sock()",
		},
	}
}

func alertsSuppressed() Topic {
	return Topic{
		Name:    "alerts_suppressed",
		Summary: "A user has so many open alerts of one kind in one network namespace that others of that kind do not open.",
		Meaning: "A user has at most 128 open alerts of one kind in one network namespace, and 64 more that are critical, so that one cause cannot flood the output; fewer if several users have that many. " +
			"No open alert is closed for another one. " +
			"occupancy is the number of causes that have no alert of their own now; netns is the namespace with most of them, and the cause names their kind. " +
			"The same causes are counted in `alerts_suppressed` of the stats records, each of them once.",
		Normal: "A host with hundreds of peers may have so many failing connects when its network is down. " +
			"Proxies and scanners reach the limit with less.",
		Remedy: "Look for what the open alerts of that kind have in common: a network, a service that is down, one process that scans. " +
			"An alert that closes makes room for another cause. " +
			"If so many are normal on this host, raise the threshold of that kind; `tcpshift alerts --help` lists the flags.",
		Sources: []string{
			"docs/detection.md has the limits",
		},
	}
}
