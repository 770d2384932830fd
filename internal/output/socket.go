package output

// socket is a connected socket that tcpshift got as standard output.
type socket struct{ descriptor }

func (s *socket) ReaderGone() bool { return s.hungUp() }
