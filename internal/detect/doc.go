// Package detect watches the stream of transitions for what piles up, and raises one
// alert for each cause: TIME_WAITs that exhaust ports or the kernel's room for them,
// connects that fail, sockets that no process closes, resets. It is pure: transitions,
// limits and a time in, alerts out. It must not read clocks or the host: [Engine.Requests]
// lists the network namespaces that it needs to know about, and the caller answers
// with [Engine.Update].
//
// Reading order, and what each file answers:
//
//	engine.go            what is the interface, and in which order are things called?
//	config.go            what can be tuned, and what are the defaults?
//	alert.go             what does an alert contain?
//	lifecycle.go         when is an alert opened, repeated and closed?
//	suppressed.go        what if too many alerts are open?
//	user.go              how much room has each user, and what was left out for lack of it?
//	detector.go          what is a detector, which ones exist, and which transitions does each see?
//	tracker.go           how many ports and TIME_WAITs does each destination and server use?
//	namespace.go         what are the limits of a namespace, and does the kernel's count confirm the model?
//	netns_gone.go        which namespaces are missing, and for how long?
//	seed.go              what was there before the start?
//	verification.go      does the kernel's table confirm a suspect?
//	correction.go        how does its table correct the model?
//	suspects.go          what does the kernel's table have of the suspects?
//	open_sockets.go      which connections are gone, although their ends were lost?
//	binds.go             which ports were bound before connect(), and are free for no destination?
//	services.go          which services and processes cause it?
//	culprit.go           which of them does an alert name?
//	time_wait_storm.go   when is a storm of TIME_WAITs certain enough for an alert?
//	port_storm.go        the storm that exhausts a client's local ports
//	attainable.go        is tcp_max_tw_buckets reached before the last port?
//	bucket_storm.go      the storm that reaches tcp_max_tw_buckets
//	exhaustion.go        connects that found no local port: which alert reports them?
//	port_exhaustion.go   the alert about those that no TIME_WAIT causes
//	bind_exhaustion.go   ports that bind() is going to take, the last one included
//	close_wait_leak.go   sockets that stay in CLOSE_WAIT
//	close_wait_table.go  does the kernel's table confirm these sockets?
//	close_wait_young.go  sockets that have just entered it
//	close_wait_gone.go   when is a leak given up that no table shows any more?
//	growth.go            how fast does a number grow, over seconds or days?
//	fin_wait2_pileup.go  peers that do not close
//	attached_sockets.go  which sockets in FIN_WAIT2 does a process still have?
//	outcomes.go          how many connections of an endpoint failed or were reset within ten seconds?
//	connect_failures.go  peers to which most connects fail
//	reset_burst.go       endpoints whose connections are mostly reset
//	listen_queue.go      listeners whose accept queue overflows, or from which no process accepts
//	listen_table.go      when are listeners read, and what does the kernel's table have?
//	listen_usage.go      how full are the accept queues, for metrics?
//	counted.go           numbers and the words for them, in the texts of alerts
//
// Two sub-packages know nothing of TCP: topk keeps the busiest keys in bounded memory,
// rate estimates occupancy and rate and forecasts exhaustion.
package detect
