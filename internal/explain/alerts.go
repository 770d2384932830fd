package explain

// Alerts returns a topic for each kind of alert. The caller may change what it gets.
func Alerts() []Topic {
	return []Topic{
		timeWaitStorm(),
		portExhaustion(),
		closeWaitLeak(),
		connectFailures(),
		finWait2Pileup(),
		resetBurst(),
	}
}

func timeWaitStorm() Topic {
	return Topic{
		Name:    "time_wait_storm",
		Summary: "Short connections leave TIME_WAITs faster than they end, and a limit will be reached.",
		Meaning: "Each connection that this side closes first stays in TIME_WAIT for 60 seconds. " +
			"For a client it keeps its local port for that time, for one destination: one local address, one peer address and one peer port. " +
			"With 28,232 ports, the default, 470 connections a second can be sustained for ever, and 471 fail within a minute. " +
			"A server spends no ports, but the namespace keeps no more than a number of TIME_WAITs that depends on the host's memory, both roles together. " +
			"capacity_kind says which of the two it is, and exhaustion_in_s when the limit will be reached: the first connect() then fails, or the next TIME_WAIT is not kept. " +
			"The alert comes only where the plateau, rate times 60 seconds, exceeds the capacity.",
		Normal: "TIME_WAITs in any number below the plateau are normal, and raise nothing. " +
			"The same is true of a burst that fits, of traffic whose peers close first, and of loopback, where connect() takes them over after a second.",
		Remedy: "Reuse connections: HTTP keep-alive, a pool in the client, one connection for each thread instead of one for each request; `pid`, `comm` and the peer in the alert say where. " +
			"If that takes time, use more local or more peer addresses: each pair has all ports again. " +
			"Then widen the range, with `sysctl -w net.ipv4.ip_local_port_range=\"10240 60999\"`, which is at most a factor of two. " +
			"net.ipv4.tcp_tw_reuse lets a new outgoing connection take over a TIME_WAIT after about a second if both sides use timestamps: the default 2 does so on loopback only, 1 everywhere. " +
			"For a server, let the clients close first: longer idle timeouts on the server than on its clients. " +
			"Old pages praise tcp_tw_recycle: it broke clients behind address translation and was removed in Linux 4.12.",
		Transitions: []string{
			"CLOSE -> SYN_SENT: one more connection is opened",
			"FIN_WAIT2 -> TIME_WAIT: and closed from this side, which keeps its port",
			"CLOSING -> TIME_WAIT: the same, where both closed at once",
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
		Summary: "A connect() found no free local port and failed with EADDRNOTAVAIL.",
		Meaning: "Every port that connect() may choose is taken for this destination: by connections that are open, and by TIME_WAITs of those that are over. " +
			"Programs report it as \"cannot assign requested address\". " +
			"The alert says how many of each there are; other destinations are not affected.",
		Normal: "It is never normal: the application has been told of an error. " +
			"A port scanner or a load generator may do it to itself on purpose.",
		Remedy: "If most ports are held by TIME_WAITs, see time_wait_storm: `tcpshift explain time_wait_storm`. " +
			"If most are held by open connections, the client opens too many to one destination or forgets to close them: `ss -tanp state established` shows whose they are. " +
			"Reuse connections first, then use more local or peer addresses, then widen net.ipv4.ip_local_port_range. " +
			"Ports in net.ipv4.ip_local_reserved_ports and those that listeners have within the range are not available either.",
		Transitions: []string{
			"SYN_SENT -> CLOSE: connect() failed at once; closed_by says no_port",
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
		Summary: "A process leaves sockets in CLOSE_WAIT, more and more of them.",
		Meaning: "The peers have closed these connections, and the process has not for a long time. " +
			"Each keeps a file descriptor, so in the end accept(), connect() and open() fail with \"too many open files\". " +
			"Only sockets that have been there for 30 seconds count, and only if their number grows.",
		Normal: "A server that still sends a long answer after the client has finished its request is in CLOSE_WAIT rightly. " +
			"A number that stays the same raises nothing.",
		Remedy: "`ss -tanp state close-wait`, run as root, lists the sockets of the process that the alert names. " +
			"Look in its code for a read that returned 0 and did not lead to close(), for error paths that forget the socket, and for pools that do not check idle connections. " +
			"Restarting it buys time; no sysctl helps.",
		Transitions: []string{
			"ESTABLISHED -> CLOSE_WAIT: the peer closed",
			"CLOSE_WAIT -> LAST_ACK: this side did, at last",
		},
		Sources: []string{
			"net/ipv4/tcp_input.c tcp_fin()",
		},
	}
}

func connectFailures() Topic {
	return Topic{
		Name:    "connect_failures",
		Summary: "Most connects to one peer fail, many times a second.",
		Meaning: "At least half of the connects to one address and port have failed within ten seconds, and at least fifty. " +
			"They were refused (nobody listens, or a firewall says so), not answered, or the peer is unreachable; the cause says which it is mostly. " +
			"A connect() that the application itself gives up after a second or more counts as not answered.",
		Normal: "A health check that fails once a second raises nothing, and neither does a scan, which goes to each port once. " +
			"A deployment may refuse for some seconds.",
		Remedy: "If they are refused, see whether the service runs and listens there. " +
			"If they are not answered, see whether the host is up, whether a firewall drops, and with `ss -ltn` on the peer whether its Recv-Q has reached its Send-Q. " +
			"In either case let clients wait longer from try to try, with some chance in it, so that they do not all come back at once.",
		Transitions: []string{
			"SYN_SENT -> CLOSE: the attempt failed; error says how",
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
		Summary: "This side has closed many connections whose peer does not close.",
		Meaning: "The peers have acknowledged our FIN and do not send theirs. " +
			"The kernel keeps each as a small timewait socket for net.ipv4.tcp_fin_timeout, with its local port. " +
			"They are counted in the kernel's own table, and only after five seconds: a peer may take a moment.",
		Normal: "Some are there wherever peers are slow or have gone without a word. " +
			"Clients on bad networks leave them at a server all the time.",
		Remedy: "Look at the peer: its application probably leaves its sockets in CLOSE_WAIT, which `ss -tanp state close-wait` shows there. " +
			"Until that is mended, a lower net.ipv4.tcp_fin_timeout frees them sooner on this side.",
		Transitions: []string{
			"FIN_WAIT2 -> TIME_WAIT: with time_wait_substate FIN_WAIT2",
		},
		Sources: []string{
			"net/ipv4/tcp_minisocks.c tcp_time_wait()",
		},
	}
}

func resetBurst() Topic {
	return Topic{
		Name:    "reset_burst",
		Summary: "Most connections at one end are reset by their peers, many times a second.",
		Meaning: "At least half of the connections that ended there within ten seconds were reset, and at least a hundred. " +
			"A reset throws away what has not been read yet, so answers may be lost.",
		Normal: "Load balancers that check a port often end the check with a reset. " +
			"Browsers and scanners do so, too, in smaller numbers.",
		Remedy: "Look at the peer: it crashes or restarts, closes with data unread, or asks for it with a linger time of 0. " +
			"Or something between drops idle connections and answers with resets: make the idle timeout on this side shorter than there. " +
			"The connection records of this end, with received_bytes and duration_ns, tell how far each one came.",
		Transitions: []string{
			"ESTABLISHED -> CLOSE: with the error ECONNRESET",
			"CLOSE_WAIT -> CLOSE: with the error EPIPE",
		},
		Sources: []string{
			"net/ipv4/tcp_input.c tcp_reset()",
		},
	}
}
