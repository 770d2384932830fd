package cli_test

import (
	"strings"
	"testing"
)

const (
	states = "ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, " +
		"CLOSING, NEW_SYN_RECV, BOUND_INACTIVE"
	portHint   = " is not a port: use 1 to 65535, or a range such as 8000-8999"
	addrHint   = " is not an address: use one such as 192.0.2.1, 2001:db8::1 or 10.0.0.0/8"
	userHint   = " is not a user: use a number from 0 to 4294967294, or a name in /etc/passwd"
	pidHint    = " is not a process id: use 1 to 4194304"
	nsHint     = "; 'lsns -t net' and 'ls /run/netns' list them"
	cgHint     = " is not a cgroup path: begin with '/', as in /proc/PID/cgroup"
	schemaHint = "--schema: --format text has no schema: use --format ndjson"
	optionHint = ": use format, schema, only, fields, queue, name, host, mode, rotate-size, rotate-age, rotate-keep, compress"
	labelHint  = "--label: --format text has no labels: use --format ndjson"
	waysHint   = "local, peer, reset_sent, reset_received, timeout, abort, refused, no_port, address_in_use"
	helpHint   = ": run 'tcpshift help' for a list"
)

// badFlags are refused with and without the command trace.
var badFlags = []struct {
	args []string
	line string // on standard error, after "tcpshift: "
}{
	{flags("--nope"), "unknown flag: --nope" + helpHint},
	{flags("--nope=1"), "unknown flag: --nope" + helpHint},
	{flags("-x"), "unknown shorthand flag: 'x' in -x" + helpHint},
	{flags("--port"), "--port: needs a value"},
	{flags("--label"), "--label: needs a value"},
	{flags("--output"), "--output: needs a value"},
	{flags("--output", ""), "--output: the path is empty: use a path, or - for standard output"},

	{flags("--port", "0"), `--port: "0"` + portHint},
	{flags("--port", "65536"), `--port: "65536"` + portHint},
	{flags("--port", "abc"), `--port: "abc"` + portHint},
	{flags("--port", "-80"), `--port: ""` + portHint},
	{flags("--port", "90-80"), `--port: range "90-80" is reversed: write 80-90`},
	{flags("--port", "80-"), `--port: ""` + portHint},
	{flags("--port", ""), `--port: ""` + portHint},
	{flags("--port", "80,,90"), `--port: ""` + portHint},
	{flags("--port", "80\n90"), `--port: "80\n90"` + portHint},
	{flags("--local-port", "0"), `--local-port: "0"` + portHint},
	{flags("--peer-port", "1-65536"), `--peer-port: "65536"` + portHint},

	{flags("--addr", "10.0.0.1/8"), `--addr: "10.0.0.1/8" has host bits: write 10.0.0.0/8, or 10.0.0.1 for that single address`},
	{flags("--addr", "2001:db8::1/32"),
		`--addr: "2001:db8::1/32" has host bits: write 2001:db8::/32, or 2001:db8::1 for that single address`},
	{flags("--addr", "garbage"), `--addr: "garbage"` + addrHint},
	{flags("--addr", ""), `--addr: ""` + addrHint},
	{flags("--addr", "127.1"), `--addr: "127.1"` + addrHint},
	{flags("--addr", "10.0.0.0/33"), `--addr: "10.0.0.0/33" is not a CIDR: use one such as 10.0.0.0/8 or 2001:db8::/32`},
	{flags("--addr", "fe80::1%eth0"), `--addr: "fe80::1%eth0"` + addrHint},
	{flags("--addr", "fe80::%eth0/64"), `--addr: "fe80::%eth0/64" is not a CIDR: use one such as 10.0.0.0/8 or 2001:db8::/32`},
	{flags("--local-addr", "x"), `--local-addr: "x"` + addrHint},
	{flags("--peer-addr", "x"), `--peer-addr: "x"` + addrHint},

	{flags("--process-args"), `--process-args: no output has process records, or a schema with processes on every record: use --only with process`},
	{flags("--process-redact", "x"), `--process-redact: no record has arguments: use --process-args`},
	{flags("--process-redact", "ab["), `--process-redact: character 3: missing closing ]: "["`},

	{flags("--family", "5"), `--family: "5" is not an address family: use 4 or 6`},
	{flags("--family", ""), `--family: "" is not an address family: use 4 or 6`},
	{flags("--pid", "0"), `--pid: "0"` + pidHint},
	{flags("--pid", "-1"), `--pid: "-1"` + pidHint},
	{flags("--pid", "x"), `--pid: "x"` + pidHint},
	{flags("--pid", "4194305"), `--pid: "4194305"` + pidHint},
	{flags("--comm", "0123456789abcdef"),
		`--comm: "0123456789abcdef" has 16 bytes, but the kernel keeps only 15: write "0123456789abcde"`},
	{flags("--comm", ""), `--comm: the process name is empty: use 1 to 15 bytes`},

	{flags("--netns", "/nonexistent"),
		`--netns: "/nonexistent" is not a network namespace: open: no such file or directory` + nsHint},
	{flags("--netns", "/proc/version"), `--netns: "/proc/version" is not a network namespace: the file is of another kind` + nsHint},
	{flags("--netns", "/proc/self/ns/mnt"),
		`--netns: "/proc/self/ns/mnt" is not a network namespace: the file is of another kind` + nsHint},
	// No process gets PID_MAX_LIMIT, and no namespace has an inode below 0xf0000000.
	{flags("--netns", "pid:4194304"), `--netns: "pid:4194304": there is no process 4194304`},
	{flags("--netns", "pid:0"), `--netns: "0"` + pidHint},
	{flags("--netns", "1"), `--netns: no network namespace has inode 1; 'lsns -t net' lists them`},
	{flags("--netns", "garbage"),
		`--netns: "garbage" is not a network namespace: use an inode number, a path with a '/', pid:N, or a name that 'ip netns list' lists`},
	{flags("--cgroup", "system.slice"), `--cgroup: "system.slice"` + cgHint},
	{flags("--cgroup", ""), `--cgroup: ""` + cgHint},
	{flags("--cgroup", "/nonexistent"),
		`--cgroup: there is no cgroup v2 directory "/nonexistent"; 'systemd-cgls' lists them`},

	{flags("--uid", "no such user"), `--uid: "no such user"` + userHint},
	{flags("--uid", "0,"), `--uid: ""` + userHint},
	{flags("--not-uid", "4294967295"), `--not-uid: "4294967295"` + userHint},
	{flags("--not-port", "0"), `--not-port: "0"` + portHint},
	{flags("--not-local-port", "90-80"), `--not-local-port: range "90-80" is reversed: write 80-90`},
	{flags("--not-peer-port", "x"), `--not-peer-port: "x"` + portHint},
	{flags("--not-addr", "x"), `--not-addr: "x"` + addrHint},
	{flags("--not-local-addr", "x"), `--not-local-addr: "x"` + addrHint},
	{flags("--not-peer-addr", "x"), `--not-peer-addr: "x"` + addrHint},
	{flags("--not-pid", "0"), `--not-pid: "0"` + pidHint},
	{flags("--not-comm", ""), `--not-comm: the process name is empty: use 1 to 15 bytes`},
	{flags("--not-netns", "pid:0"), `--not-netns: "0"` + pidHint},
	{flags("--not-cgroup", "x"), `--not-cgroup: "x"` + cgHint},

	{flags("--old-state", "open"), `--old-state: "open" is not a state: use ` + states},
	{flags("--new-state", "STATE_17"), `--new-state: "STATE_17" is not a state: use ` + states},
	{flags("--new-state", "CLOSE,"), `--new-state: "" is not a state: use ` + states},
	{flags("--role", "peer"), `--role: "peer" is not a role: use client, server, listener`},

	{flags("--format", "xml"), `--format: "xml" is not a format: use ndjson or text`},
	{flags("--color", "yes"), `--color: "yes" is not a color mode: use auto, always or never`},
	{flags("--color", "always"), `--color: --format ndjson has no colors: use --format text`},
	{flags("--only", "transitions"), `--only: "transitions" is not a record type: use transition, connection, alert, summary, process, stats, loss`},
	{flags("--only", ""), `--only: "" is not a record type: use transition, connection, alert, summary, process, stats, loss`},
	{flags("--duration", "x"), `--duration: "x" is not a duration: use one such as 500ms, 30s or 5m`},
	{flags("--duration", "5"), `--duration: "5" is not a duration: use one such as 500ms, 30s or 5m`},
	{flags("--duration", "-1s"), `--duration: "-1s" is negative: use 0 or more`},
	{flags("--stats-interval", "-1s"), `--stats-interval: "-1s" is negative: use 0 or more`},
	{flags("--count", "0"), `--count: "0" is not a count: use 1 or more`},
	{flags("--count", "-1"), `--count: "-1" is not a count: use 1 or more`},
	{flags("--count", "x"), `--count: "x" is not a count: use 1 or more`},
	{flags("--buffer-size", "16"), `--buffer-size: "16" has no unit: use KiB, MiB or GiB, such as 16MiB`},
	{flags("--buffer-size", "16MB"), `--buffer-size: "16MB" has no unit: use KiB, MiB or GiB, such as 16MiB`},
	{flags("--buffer-size", "3MiB"), `--buffer-size: "3MiB" is not a power of two: use one such as 16MiB`},
	{flags("--buffer-size", "32KiB"), `--buffer-size: "32KiB" is out of range: use 64KiB to 1GiB`},
	{flags("--buffer-size", "2GiB"), `--buffer-size: "2GiB" is out of range: use 64KiB to 1GiB`},
	{flags("--queue-size", "128KiB"), `--queue-size: "128KiB" is out of range: use 256KiB to 1GiB`},
	{flags("--queue-size", "8"), `--queue-size: "8" has no unit: use KiB, MiB or GiB, such as 16MiB`},

	{flags("--output", "x?foo=1"), `--output: x?foo=1: "foo" is not an option of an output` + optionHint + ", or file: and %3F for a '?' in a path"},
	{flags("--output", "x?format"), `--output: x?format: format: needs a value: write format=VALUE`},
	{flags("--output", "x?format=xml"), `--output: x?format=xml: format: "xml" is not a format: use ndjson or text`},
	{flags("--output", "x?format=text&format=text"), `--output: x?format=text&format=text: format: is there twice: write it once`},
	{flags("--output", "x?only=start"), `--output: x?only=start: only: "start" is not a record type: use transition, connection, alert, summary, process, stats, loss`},
	{flags("--output", "x?schema=xml"), `--output: x?schema=xml: schema: "xml" is not a schema: use native, ecs or otel`},
	{flags("--output", "x?schema=native&format=text"), `--output: x?schema=native&format=text: schema: --format text has none: use format=ndjson`},
	{flags("--output", "x?queue=1"), `--output: x?queue=1: queue: "1" has no unit: use KiB, MiB or GiB, such as 16MiB`},
	{flags("--output", "x?mode=rw"), `--output: x?mode=rw: mode: "rw" is not a mode: use octal permissions such as 0640`},
	{flags("--output", "x?mode=0444"), `--output: x?mode=0444: mode: "0444" does not let the owner read and write: use one such as 0640`},
	{flags("--output", "-?mode=0640"), `--output: -?mode=0640: mode: this kind of output has no such option: use format, schema, only, fields, queue, name, host`},
	{flags("--output", "x?name=a/b"), `--output: x?name=a/b: name: "a/b" is not a name: use up to 64 letters, digits, and _ . - within`},
	{flags("--output", "x?name=%zz"), `--output: x?name=%zz: name: invalid URL escape "%zz"`},
	{flags("--output", "a?name=n", "--output", "b?name=n"), `--output: a?name=n and b?name=n have the same name: choose another`},
	{flags("--output", "nope://x"), `--output: nope://x: "nope:" is not a scheme: use file:, unix:, unixgram:, tcp:, tls:, journald:, otlp:, otlps:, otlp+http:, otlps+http:, or ./nope://x for a file of that name`},
	{flags("--metrics-otlp", "http://h:1"), `--metrics-otlp: http://h:1: is not the URL of an OpenTelemetry receiver: use otlp://HOST:PORT or otlp+http://HOST:PORT`},
	{flags("--output", "file://host/x"), `--output: file://host/x: has a host: write file:///PATH`},
	{flags("--output", "tcp://host"), `--output: tcp://host: is not an address: write tcp://HOST:PORT, such as tcp://192.0.2.1:6514`},
	{flags("--output", "otlp://h:1/otlp"), `--output: otlp://h:1/otlp: is not an address: write otlp://HOST:PORT, such as otlp://192.0.2.1:6514`},
	{flags("--output", "otlp+http:h:1/otlp"), `--output: otlp+http:h:1/otlp: is not an address: write otlp+http://HOST:PORT, such as otlp+http://192.0.2.1:6514`},
	{flags("--output", "otlp+http://h:1/%zz"), `--output: otlp+http://h:1/%zz: invalid URL escape "%zz"`},
	{flags("--output", "otlp+http://h:1/a", "--output", "otlp+http://h:1/a/"), `--output: otlp+http://h:1/a and otlp+http://h:1/a/ are the same: use one of them`},
	{flags("--output", "tls:h:0"), `--output: tls:h:0: is not an address: write tls://HOST:PORT, such as tls://192.0.2.1:6514`},
	{flags("--output", "tcp://h:1?ca=x"), `--output: tcp://h:1?ca=x: ca: this kind of output has no such option: use format, schema, only, fields, queue, name, host`},
	{flags("--output", "tls://h:1?cert=x"), `--output: tls://h:1?cert=x: cert and key belong together: give both`},
	{flags("--output", "x?rotate-size=1KiB"), `--output: x?rotate-size=1KiB: rotate-size: "1KiB" is not a size from 64KiB on: use one such as 100MiB`},
	{flags("--output", "x?rotate-size=100"), `--output: x?rotate-size=100: rotate-size: "100" has no unit: use KiB, MiB or GiB, such as 100MiB`},
	{flags("--output", "x?rotate-age=1ms"), `--output: x?rotate-age=1ms: rotate-age: "1ms" is too short: use 1s or more, such as 24h`},
	{flags("--output", "x?rotate-age=1h&rotate-keep=0"), `--output: x?rotate-age=1h&rotate-keep=0: rotate-keep: "0" is not a limit: use 1 or more`},
	{flags("--output", "x?rotate-age=1h&compress=zip"), `--output: x?rotate-age=1h&compress=zip: compress: "zip" is not a compression: use gzip`},
	{flags("--output", "x?compress=gzip"), `--output: x?compress=gzip: nothing rotates this file: add rotate-size or rotate-age`},
	{flags("--output", "x?host=1"), `--output: x?host=1: host: "1" is neither true nor false`},
	{flags("--output", "?format=text"), `--output: the path is empty: use a path, or - for standard output`},
	{flags("--label", "a=b", "--format", "text"), labelHint},
	{flags("--format", "text", "--label", "a=b", "--label", "c=d"), labelHint},
	{flags("--schema", "ecs", "--format", "text"), schemaHint},
	{flags("--format", "text", "--schema", "native"), schemaHint},
	{flags("--schema", "ECS"), `--schema: "ECS" is not a schema: use native, ecs or otel`},
	{flags("--schema", ""), `--schema: "" is not a schema: use native, ecs or otel`},

	{flags("--closed-by", "timeouts"), `--closed-by: "timeouts" is not a way to close: use ` + waysHint},
	{flags("--closed-by", ""), `--closed-by: "" is not a way to close: use ` + waysHint},
	{flags("--closed-by", "peer", "--only", "transition"), `--closed-by: chooses among connection records, and no output has them: add connection to --only`},
	{flags("--min-duration", "1s", "--output", "x?only=alert"), `--min-duration: chooses among connection records, and no output has them: add connection to --only`},
	{flags("--min-duration", "-1s"), `--min-duration: "-1s" is negative: use 0 or more`},
	{flags("--min-bytes", "1", "--only", "stats"), `--min-bytes: chooses among connection records, and no output has them: add connection to --only`},
	{flags("--min-bytes", "1KB"), `--min-bytes: "1KB" is not a size: use bytes such as 1500, or a unit such as 64KiB or 1MiB`},
	{flags("--error", "ECONN"), `--error: "ECONN" is not an error: use one as in the records, such as ECONNREFUSED or ETIMEDOUT`},
	{flags("--error", "EPIPE", "--only", "alert"), `--error: no output has transition or connection records: add one of them to --only`},
	{flags("--sample", "100"), `--sample: "100" is not a share: use 1/N with N from 1 to 1000000, such as 1/100`},
	{flags("--sample", "1/0"), `--sample: "1/0" is not a share: use 1/N with N from 1 to 1000000, such as 1/100`},
	{flags("--sample", "2/3"), `--sample: "2/3" is not a share: use 1/N with N from 1 to 1000000, such as 1/100`},
	{flags("--sample", "1/2", "--only", "alert"), `--sample: no output has transition or connection records: add one of them to --only`},
	{flags("--pod", ""), `--pod: the name is empty: use a name or an id as in the records`},
	{flags("--pod", "web", "--only", "stats"), `--pod: no output has transition, connection or alert records: add one of them to --only`},
	{flags("--container", "web", "--sandbox", "--only", "connection"),
		`--container: with --sandbox and without alerts no names are read: add alert to --only, or leave out --sandbox`},

	{flags("--fields", "conn,closedby"), `--fields: "closedby" is not a key of the schema native: use one such as closed_by, which is the nearest`},
	{flags("--fields", "pid", "--schema", "ecs"), `--fields: "pid" is not a key of the schema ecs: use one such as process.pid, which is the nearest`},
	{flags("--output", "x?fields=process.pid", "--schema", "otel", "--output", "y?fields=event.dataset"),
		`--output: y?fields=event.dataset: fields: "event.dataset" is not a key of the schema otel: use one such as event_name, which is the nearest`},
	{flags("--fields", "conn,"), `--fields: the key is empty: use keys of the records, such as conn,closed_by`},
	{flags("--fields", "conn", "--format", "text"), `--fields: --format text has no keys: use --format ndjson`},
	{flags("--output", "x?fields=conn&format=text"), `--output: x?fields=conn&format=text: fields: --format text has no keys: use format=ndjson`},

	{flags("--label", "ab"), `--label: "ab" has no '=': write KEY=VALUE`},
	{flags("--label", "Bad-Key=1"), `--label: key "Bad-Key" is not snake_case: use a-z, 0-9 and _, a letter first`},
	{flags("--label", "=1"), `--label: key "" is not snake_case: use a-z, 0-9 and _, a letter first`},
	{flags("--label", "pid=1"), `--label: key "pid" is taken: choose one that neither a record nor another label has`},
	{flags("--label", "a=1", "--label", "a=2"),
		`--label: key "a" is taken: choose one that neither a record nor another label has`},
	{flags("--label", "a=\xff"), `--label: the value of "a" is not UTF-8`},
	{flags("--label", "a="+strings.Repeat("x", 1018)),
		`--label: labels take 1025 bytes of every record, at most 1024 fit: shorten them`},
}

// A wrong flag or value is refused with one line that names it, and status 2.
func TestUsage_BadFlag(t *testing.T) {
	for _, row := range badFlags {
		for _, command := range [][]string{nil, {"trace"}} {
			refused(t, append(command, row.args...), row.line)
		}
	}
}

// A wrong command or argument is refused with one line that names it, and status 2.
func TestUsage_BadCommand(t *testing.T) {
	for _, row := range []struct {
		args []string
		line string
	}{
		{flags("extra"), `unknown command "extra"` + helpHint},
		{flags("Trace"), `unknown command "Trace"` + helpHint},
		{flags("--port", "80", "extra"), `unknown command "extra"` + helpHint},
		{flags("--", "extra"), `unknown command "extra"` + helpHint},
		{flags("trace", "extra"), `unexpected argument "extra": 'tcpshift trace' takes flags, and a command behind '--'`},
		{flags("trace", "--port", "80", "90"), `unexpected argument "90": 'tcpshift trace' takes flags, and a command behind '--'`},
		{flags("trace", "--"), `no command behind '--': write 'tcpshift trace -- COMMAND'`},
		{flags("version", "extra"), `unexpected argument "extra": 'tcpshift version' takes flags only`},
		{flags("version", "--nope"), `unknown flag: --nope: run 'tcpshift help version' for a list`},
		{flags("doctor", "extra"), `unexpected argument "extra": 'tcpshift doctor' takes flags only`},
		{flags("doctor", "--nope"), `unknown flag: --nope: run 'tcpshift help doctor' for a list`},
		{flags("snapshot", "--count-by", "color"),
			`--count-by: "color" is not a key: use state, netns, local, local_port, peer, peer_addr, pid, comm, uid, container, pod, namespace, container_name, unit, service`},
		{flags("snapshot", "--container", ""), `--container: the name is empty: use a name or an id as in the records`},
		{flags("trace", "--updates", "10ms"), `--updates: "10ms" is too short: use 1s or more`},
		{flags("trace", "--updates", "-1m"), `--updates: "-1m" is negative: use 0 or more`},
		{flags("trace", "--updates", "often"), `--updates: "often" is not a duration: use one such as 500ms, 30s or 5m`},
		{flags("trace", "--updates", "1m", "--only", "alert"), `--updates: no output has connection records: add connection to --only`},
		{flags("trace", "--summary", "10ms"), `--summary: "10ms" is too short: use 1s or more`},
		{flags("trace", "--summary", "1m", "--only", "alert"), `--summary: no output has summary records: add summary to --only`},
		{flags("trace", "--only", "summary"), `--only: summary records need a window: add --summary, such as --summary 1m`},
		{flags("snapshot", "extra"), `unexpected argument "extra": 'tcpshift snapshot' takes flags only`},
		{flags("snapshot", "--nope"), `unknown flag: --nope: run 'tcpshift help snapshot' for a list`},
		{flags("snapshot", "--netns", "1"), `--netns: no network namespace has inode 1; 'lsns -t net' lists them`},
		{flags("snapshot", "--label", "a=b", "--format", "text"), labelHint},
		{flags("snapshot", "--color", "always"), `--color: --format ndjson has no colors: use --format text`},
		{flags("alerts", "--storm-threshold", "100"), `--storm-threshold: "100" is not a percentage from 20 to 99: use one such as 70`},
		{flags("alerts", "--output", "x?only=stats"), `--output: x?only=stats: only: the command alerts writes alerts only: use the command trace`},
		{flags("alerts", "--resets", "0"), `--resets: "0" is not a limit: use 1 or more`},
		{flags("alerts", "--alert-interval", "1s"), `--alert-interval: "1s" is too short: use 10s or more`},
		{flags("snapshot", "--label", "expires_in_ns=1"),
			`--label: key "expires_in_ns" is taken: choose one that neither a record nor another label has`},
		{flags("explain", "nope"), `no topic "nope": 'tcpshift explain' lists all topics`},
		{flags("explain", "CLOSE", "nope"), `no topic "CLOSE nope": 'tcpshift explain' lists all topics`},
		{flags("explain", "--nope"), `unknown flag: --nope: run 'tcpshift help explain' for a list`},
		{flags("top"), `standard output is no terminal, which top needs: use trace or alerts to write records`},
		{flags("top", "--nope"), `unknown flag: --nope: run 'tcpshift help top' for a list`},
		{flags("top", "x", "y"), `2 files: write 'tcpshift top FILE', or no file to watch this host`},
		{flags("top", "x"), `standard output is no terminal, which top needs: use trace or alerts to write records`},
		{flags("top", "-"), `-: top takes keys from standard input: name a file`},
		{flags("top", "x", "--port", "80"), `--port: a recording shows what it has: leave it out, or leave x out to watch this host`},
		{flags("top", "--speed", "2"), `--speed: there is no recording: name its file`},
		{flags("report"), `no recording: write 'tcpshift report FILE...', or - for standard input`},
		{flags("report", "x", "--output", ""), `--output: the path is empty: use a path, or - for standard output`},
		{flags("report", "x", "--nope"), `unknown flag: --nope: run 'tcpshift help report' for a list`},
		{flags("completion"), `completion needs a shell: use bash, fish, powershell, zsh`},
		{flags("completion", "tcsh"), `"tcsh" is not a supported shell: use bash, fish, powershell, zsh`},
		{flags("completion", "bash", "extra"),
			`unexpected argument "extra": 'tcpshift completion bash' takes flags only`},
		{flags("completion", "bash", "--nope"), `unknown flag: --nope: run 'tcpshift help completion bash' for a list`},
		{flags("alerts", "--summary", "1m"), `unknown flag: --summary: run 'tcpshift help alerts' for a list`},
		{flags("help", "nope"), `unknown command "nope"` + helpHint},
		{flags("help", "trace", "nope"), `unknown command "trace nope"` + helpHint},
	} {
		refused(t, row.args, row.line)
	}
}

func refused(t *testing.T, args []string, line string) {
	t.Helper()
	t.Run(commandLine(append([]string{"tcpshift"}, args...)), func(t *testing.T) {
		r := run(args)
		r.mustEnd(t, 2)
		r.mustPrintNothing(t)
		r.mustPrintError(t, line)
	})
}
