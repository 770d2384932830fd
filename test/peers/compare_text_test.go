package peers_test

// comparisonText is docs/comparison.md without what the tools printed.
const comparisonText = `# Comparison with other tools

<!-- Written by make compare: change test/peers/compare_*_test.go. -->

This page shows what tcpshift and other tools print for ten everyday cases. ` + "`make compare`" + ` makes
the connections in network namespaces of their own, runs the tools beside each other, and writes
this page. The client is process 1001, the server is 1002, and a worker of the server is 1003. The
port of the client is 50001, the port of the server is 8080. Process ids, kernel addresses, the
inode of the namespace and the time of day are replaced, so that two runs can be compared.

This run: {versions}.

## Who has the socket

tcpshift and tcpstates print a row for each transition, tcplife prints one for each end of a
connection. The three numbers count the rows that name a process with the socket, the rows that name
a process without it, and the rows that name no process (tcpstates and tcplife print 0). At the
server a process that has the listener counts as right.

| case | tcpshift | tcpstates | tcplife |
|---|---|---|---|
{summary}
tcpstates prints the task that is on the processor at the transition ([source][states], read at
commit 6d0a964c2cda). On loopback this is often the other end of the connection; with a real network
it can be any process. tcplife remembers the task at SYN_SENT and at LAST_ACK, and otherwise prints
the task at the end ([source][life], same commit). The test ` + "`TestCompare_OwnersInTenCases`" + ` fails if
tcpshift names a wrong process in one of the ten cases.

[states]: https://github.com/iovisor/bcc/blob/6d0a964c2cda4f8c61106a11c53d8eadd5a16097/libbpf-tools/tcpstates.bpf.c
[life]: https://github.com/iovisor/bcc/blob/6d0a964c2cda4f8c61106a11c53d8eadd5a16097/libbpf-tools/tcplife.bpf.c

{cases}## Tools that need kprobes

These tools attach to kernel functions by kprobes. On a kernel without kprobes, as in this run, they
end with an error:

| tool | last line of its output |
|---|---|
{failed}
## Inspektor Gadget

**From source, not run.** The gadget ` + "`trace_tcp`" + ` at commit [aeac857bd979][gadget] attaches kprobes
to ` + "`tcp_v4_connect`, `tcp_v6_connect`, `tcp_set_state` and `tcp_close`" + `, and a kretprobe to
` + "`inet_csk_accept`" + `. It emits three types of event: connect, accept and close, each with process,
container, addresses, ports and error. It emits no states, durations or byte counts. According
to its source, it emits these events in the ten cases:

| case | events |
|---|---|
{gadget}
[gadget]: https://github.com/inspektor-gadget/inspektor-gadget/tree/aeac857bd9791c2ac5ce3e9e669be04634f385e7/gadgets/trace_tcp
`
