package output

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

// exportBatch is how many bytes of lines make one request, at most, or one line. Receivers of OTLP over gRPC accept
// 4 MiB.
const exportBatch = 256 << 10

// exportConn is the connection of an output whose receiver answers each request. It sends one request at a time, in
// the background, so that the queue's goroutine waits for no answer longer than for another write.
type exportConn struct {
	net.Conn // nil
	exporter Exporter
	ctx      context.Context
	cancel   context.CancelFunc
	wake     func()
	answer   chan exportAnswer // nil: there is no request
}

type exportAnswer struct {
	size     int // bytes of lines
	rejected int
	err      error
}

func newExportConn(ctx context.Context, e Exporter, wake func()) *exportConn {
	c := &exportConn{exporter: e, wake: wake}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// Close ends the request.
func (c *exportConn) Close() error {
	c.cancel()
	if c.answer != nil {
		<-c.answer // the exporter is free for the next one
		c.answer = nil
	}
	return nil
}

// begin sends a request.
func (c *exportConn) begin(lines []byte) {
	answer := make(chan exportAnswer, 1)
	c.answer = answer
	lines = append([]byte(nil), lines...) // the caller may move them to the spool meanwhile
	go func() {
		rejected, err := c.exporter.Export(c.ctx, lines)
		answer <- exportAnswer{len(lines), rejected, err}
		c.wake()
	}()
}

// export is write for an exportConn. Until a request is answered, lines must begin with the lines of that
// request.
func (o *remote) export(c *exportConn, lines []byte) (whole int, err error) {
	if o.sent == 0 {
		if c.answer == nil {
			c.begin(lines)
		}
		select {
		case answer := <-c.answer:
			c.answer = nil
			if answer.err != nil {
				return 0, answer.err
			}
			o.notifyBack()
			o.sent = answer.size
			o.noteRejected(answer.rejected)
		case <-time.After(o.writeLimit()):
			return 0, os.ErrDeadlineExceeded
		}
	}
	whole = min(o.sent, len(lines))
	o.sent -= whole
	return whole, nil
}

// noteRejected counts lines that the receiver has refused, and notifies the operator of the first ones.
func (o *remote) noteRejected(count int) {
	if count > 0 && o.refused.Add(uint64(count)) == uint64(count) {
		o.Notify(fmt.Sprintf("%s refuses records for good, %d so far: loss records count them", o.Address, count))
	}
}
