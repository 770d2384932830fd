package pipelines_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
)

// trafficPort is the port of the connections that are traced. The consumers use others.
const trafficPort = 7007

// actorEnv makes this program a process that names itself as its value says, and connects.
const actorEnv = "TCPSHIFT_TEST_ACTOR"

// strangeNames are what a process may call itself: everything that JSON, a template language, SQL or a
// shell could take for its own. The kernel keeps 15 bytes.
var strangeNames = []string{
	"plain",
	`a"b\c/d`,
	"line\nbreak\ttab",
	"\x01\x1b[31m\x7f",
	"grüße 世界",
	"\xff\xfe not utf8",
	"$!%msg%${x}{{y}",
	"'); DROP --",
	" ",
	"\u202egnp.exe",
	`\u0041\n\\`,
	"1e400",
}

func actorMain() int {
	if err := os.WriteFile("/proc/self/comm", []byte(os.Getenv(actorEnv)), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	conn, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("hello\n"))
	_, _ = io.Copy(io.Discard, conn)
	return 0
}

// serve answers each connection at trafficPort with 3000 bytes.
func serve(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", trafficPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
					_, _ = conn.Write(make([]byte, 3000))
				}
			}()
		}
	}()
}

// makeConnections makes one connection from a process of each strange name, and a refused one.
func makeConnections(t testing.TB) {
	t.Helper()
	for _, name := range strangeNames {
		cmd := exec.Command("/proc/self/exe", fmt.Sprintf("127.0.0.1:%d", trafficPort))
		cmd.Env = append(os.Environ(), actorEnv+"="+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("connect as %q: %v\n%s", name, err, out)
		}
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", trafficPort)); err == nil {
		conn.Close()
		t.Fatal("the connection to [::1] was not refused")
	}
}
