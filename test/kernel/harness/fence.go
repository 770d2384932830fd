package harness

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// FencePort is the peer port of a fence. No socket listens on it.
const FencePort = 9

// fence makes a transition in the namespace. The records of all earlier transitions of
// the namespace come before its record.
func fence(n *tcplab.Netns) error {
	var err error
	n.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		to := unix.SockaddrInet4{Port: FencePort, Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}).As4()}
		if err = unix.Connect(fd, &to); errors.Is(err, unix.ECONNREFUSED) {
			err = nil
		}
	})
	return err
}

func hasFence(n *tcplab.Netns, text []byte) bool {
	port := fmt.Appendf(nil, `"peer_port":%d,`, FencePort)
	for l := range bytes.Lines(ofNamespaces(text, n.Inode())) {
		if bytes.Contains(l, port) && bytes.Contains(l, []byte(`"new_state":"CLOSE"`)) {
			return true
		}
	}
	return false
}
