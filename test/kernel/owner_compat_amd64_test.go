package kernel_test

import (
	"testing"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// Other ways to make system calls: socketcall() of the i386 ABI, int 0x80 in a 64-bit
// process, and the x32 ABI.
func TestOwner_CompatCalls(t *testing.T) {
	t.Run("socketcall", func(t *testing.T) {
		compatConnections(t, func(server, client *harness.Actor) {
			server.ExecCompat("server32")
			server.UseSocketcall()
			client.ExecCompat("client32")
			client.UseSocketcall()
		})
	})
	t.Run("int 0x80", func(t *testing.T) {
		compatConnections(t, func(server, client *harness.Actor) {
			server.UseInt80()
			client.UseInt80()
		})
	})
	t.Run("x32", func(t *testing.T) {
		compatConnections(t, func(server, client *harness.Actor) {
			server.UseX32()
			client.UseX32()
		})
	})
}
