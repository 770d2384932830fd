package output

import (
	"bytes"
	"net"
	"sync/atomic"
	"testing"
)

// A reader that is always behind lets its kernel enlarge the receive buffer, and no write finds the whole of it
// free. Nothing that it has not read when it is killed is missing in what the next reader gets.
func TestRecent_ReaderAlwaysBehind(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var hasRead atomic.Int64
	line := append(bytes.Repeat([]byte{'x'}, 1023), '\n')
	batch := bytes.Repeat(line, 64)
	var recent recentLines
	sent, least, worst := int64(0), int64(0), int64(0)
	go func() {
		for b := make([]byte, 32<<10); ; {
			n, err := reader.Read(b)
			if hasRead.Add(int64(n)); err != nil {
				return
			}
		}
	}()
	for sent < 40<<20 {
		recent.look(conn)
		if _, err := conn.Write(batch); err != nil {
			t.Fatal(err)
		}
		recent.add(batch, conn)
		sent += int64(len(batch))
		worst = max(worst, sent-hasRead.Load())
		if spare := int64(len(recent.tail())) - (sent - hasRead.Load()); spare < least {
			least = spare
		}
	}
	if least < 0 {
		t.Errorf("%d bytes that the reader had not read would be missing; it was %d bytes behind", -least, worst)
	}
}
