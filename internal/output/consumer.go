package output

// consumer is an output inside this process.
type consumer struct{ take func(lines []byte) }

// Consume returns an output that passes whole lines to take, from the goroutine of its queue. take must not keep the slice.
// If it is slow, the output is one whose reader stalls.
func Consume(take func(lines []byte)) Output { return consumer{take} }

// Write implements [Output].
func (c consumer) Write(lines []byte) (int, error) { return c.try(lines) }

// ReaderGone implements [Output].
func (consumer) ReaderGone() bool { return false }

// Reopens implements [Output].
func (consumer) Reopens() bool { return false }

// Reopen implements [Output].
func (consumer) Reopen() error { return nil }

// Close implements [Output].
func (consumer) Close() error { return nil }

func (consumer) batchSize() int { return defaultBatch }

func (c consumer) try(lines []byte) (int, error) {
	c.take(lines)
	return len(lines), nil
}

func (consumer) awaitRoom() {}

func (consumer) retryable(error) bool { return false }
