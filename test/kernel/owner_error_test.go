package kernel_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// With IP_RECVERR the error of an ICMP message stays on the socket. It ends nothing, so it
// does not hide the process that closes the socket later, and that has made no transition
// of it before.
func TestOwner_CloseAfterICMPError(t *testing.T) {
	for name, end := range map[string]func(server *harness.Actor, s *harness.Socket){
		"in order": func(server *harness.Actor, s *harness.Socket) { server.Close(s) },
		"reset": func(server *harness.Actor, s *harness.Socket) {
			server.LingerZero(s)
			server.Close(s)
		},
		"reset by exit": func(server *harness.Actor, s *harness.Socket) {
			server.LingerZero(s)
			server.Exit()
		},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				server, client := env.ServerAndClient()
				listener := server.Listen(harness.At(7000))
				c := client.Dial(harness.At(7000))
				s := server.Accept(listener)
				server.SetInt(s, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
				sendUnreachable(env, s, server.SendSequence(s))
				server.Close(listener) // so that its owner is no answer
				end(server, s)
				client.Close(c)
			})
		})
	}
}

// sendUnreachable sends the ICMP error of a router that cannot deliver the segment of s
// that begins at seq.
func sendUnreachable(env *harness.Env, s *harness.Socket, seq uint32) {
	env.T.Helper()
	from, to := s.Local, s.Peer
	segment := make([]byte, 28) // the IP header and the first eight bytes of TCP's
	segment[0], segment[8], segment[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(segment[2:], 40)
	copy(segment[12:], from.Addr().AsSlice())
	copy(segment[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(segment[20:], from.Port())
	binary.BigEndian.PutUint16(segment[22:], to.Port())
	binary.BigEndian.PutUint32(segment[24:], seq)
	const unreachable, host = 3, 1 // RFC 792
	message := append([]byte{unreachable, host, 0, 0, 0, 0, 0, 0}, segment...)
	sum := uint32(0)
	for i := 0; i < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	var err error
	env.Netns.Do(func() {
		var raw int
		if raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); err == nil {
			err = unix.Sendto(raw, message, 0, &unix.SockaddrInet4{Addr: from.Addr().As4()})
			unix.Close(raw)
		}
	})
	if err != nil {
		env.T.Fatalf("send an ICMP error: %v", err)
	}
}
