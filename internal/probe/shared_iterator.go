package probe

import (
	"io"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// sharedIterator is an iterator program that any goroutine may run at any time, also when the others are
// closed.
type sharedIterator struct {
	mu sync.Mutex
	it *link.Iter // nil: there is none, or it is closed
}

// attach makes the program ready to run. It does nothing if program is nil.
func (s *sharedIterator) attach(program *ebpf.Program) error {
	if program == nil {
		return nil
	}
	it, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return err
	}
	s.it = it
	return nil
}

// swap exchanges the programs that later iterations run. It does nothing if other has none, or s has none any more.
func (s *sharedIterator) swap(other *sharedIterator) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.it != nil && other.it != nil {
		s.it, other.it = other.it, s.it
	}
}

func (s *sharedIterator) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.it == nil {
		return nil
	}
	err := s.it.Close()
	s.it = nil
	return err
}

// open begins an iteration, which does not depend on a later close. It returns errNone if there is no iterator.
func (s *sharedIterator) open(errNone error) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.it == nil {
		return nil, errNone
	}
	r, err := s.it.Open()
	if err != nil {
		return nil, err
	}
	return iterator{steadyReader{r}, r}, nil
}
