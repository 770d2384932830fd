package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// compatEnds are the ways in which a connection ends below.
var compatEnds = map[string]func(client *harness.Actor, c *harness.Socket, server *harness.Actor, s *harness.Socket){
	"the server first": func(client *harness.Actor, c *harness.Socket, server *harness.Actor, s *harness.Socket) {
		harness.CloseInOrder(client, c, server, s, false)
	},
	"the client first": func(client *harness.Actor, c *harness.Socket, server *harness.Actor, s *harness.Socket) {
		harness.CloseInOrder(client, c, server, s, true)
	},
	"the server resets": func(client *harness.Actor, c *harness.Socket, server *harness.Actor, s *harness.Socket) {
		server.LingerZero(s)
		server.Close(s)
		client.Close(c)
	},
	"the client resets": func(client *harness.Actor, c *harness.Socket, server *harness.Actor, s *harness.Socket) {
		client.LingerZero(c)
		client.Close(c)
		server.Close(s)
	},
	"the server shuts down": func(client *harness.Actor, c *harness.Socket, server *harness.Actor, s *harness.Socket) {
		server.Shutdown(s, unix.SHUT_WR)
		client.Close(c)
		server.Close(s)
	},
	"killed": func(client *harness.Actor, c *harness.Socket, server *harness.Actor, _ *harness.Socket) {
		server.Kill()
		client.Close(c)
	},
}

// compatConnections makes a connection for each way to end, with low descriptors and with
// descriptors past those that the programs search.
func compatConnections(t *testing.T, prepare func(server, client *harness.Actor)) {
	t.Helper()
	for _, descriptors := range []int{0, 300} {
		for name, end := range compatEnds {
			t.Run(fmt.Sprintf("%s, descriptors from %d", name, descriptors), func(t *testing.T) {
				harness.Run(t, func(env *harness.Env) {
					server, client := env.ServerAndClient()
					prepare(server, client)
					server.FillDescriptors(descriptors)
					client.FillDescriptors(descriptors)
					listener := server.Listen(harness.At(7000))
					c := client.Dial(harness.At(7000))
					s := server.Accept(listener)
					client.Write(c, "question")
					server.Read(s)
					server.Write(s, "answer")
					client.Read(c)
					end(client, c, server, s)
				})
			})
		}
	}
}

// A 32-bit process on a 64-bit kernel owns its sockets as any other process does.
func TestOwner_CompatProcess(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		compatConnections(t, func(server, _ *harness.Actor) { server.ExecCompat("server32") })
	})
	t.Run("client", func(t *testing.T) {
		compatConnections(t, func(_, client *harness.Actor) { client.ExecCompat("client32") })
	})
}

// A process executes a program of the other kind, which closes the sockets that it does
// not pass on. They are its own.
func TestOwner_CompatExec(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.ServerAndClient()
		listener := server.Listen(harness.At(7000))
		c := client.Dial(harness.At(7000))
		s := server.Accept(listener)
		server.CloseOnExec(s)
		server.ExecCompat("server32")
		client.Close(c)
		server.Close(listener)
	})
}
