package fleet_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// actorEnv makes this program a process of a host.
const actorEnv = "TCPSHIFT_TEST_FLEET_ACTOR"

// greeting is what a server with Greets sends first. A client that has read it knows that the connection is accepted.
const greeting = "220 hello\n"

// actor is a process of a host, with the name of a service. It serves or connects.
type actor struct {
	Name       string
	Listen     string // address of a server, which runs until its standard input ends
	NeverClose bool   // a server keeps a connection open whose peer has closed
	CloseFirst bool   // a server closes at once
	Greets     bool   // a server sends the greeting first, and its client waits for that

	Connect  string // address to which a client connects
	Count    int
	Pause    time.Duration // between two connects
	ReadEOF  bool          // wait until the server closes
	FailOnly bool          // each connect must fail
}

// actorMain runs the actor that text describes in JSON, and returns its exit status.
func actorMain(text string) int {
	var a actor
	err := json.Unmarshal([]byte(text), &a)
	if err == nil {
		err = os.WriteFile("/proc/self/comm", []byte(a.Name), 0o600)
	}
	if err == nil && a.Listen != "" {
		err = a.serve()
	} else if err == nil {
		err = a.connect()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, a.Name+":", err)
		return 1
	}
	return 0
}

// serve accepts until standard input ends. It writes a line once it listens.
func (a *actor) serve() error {
	l, err := net.Listen("tcp", a.Listen)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if a.Greets {
					_, _ = io.WriteString(conn, greeting)
				}
				if !a.CloseFirst {
					_, _ = io.Copy(io.Discard, conn)
				}
				if !a.NeverClose {
					_ = conn.Close()
				}
			}()
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// connect connects and closes Count times, one connection after the other.
func (a *actor) connect() error {
	for range a.Count {
		conn, err := net.Dial("tcp", a.Connect)
		if (err != nil) != a.FailOnly {
			return fmt.Errorf("connect to %s: %w", a.Connect, err)
		}
		if err == nil {
			if a.Greets {
				_, _ = io.ReadFull(conn, make([]byte, len(greeting)))
			}
			if a.ReadEOF {
				_, _ = io.Copy(io.Discard, conn)
			}
			if err := conn.Close(); err != nil {
				return err
			}
		}
		time.Sleep(a.Pause)
	}
	return nil
}
