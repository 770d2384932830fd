package tcp

// ResetCode is why this side sent a reset: a value of the running kernel's enum
// sk_rst_reason plus 1, or 0 where the kernel gives none (before 6.10).
type ResetCode uint8

// LateReset is a reset that this side has sent after the socket's transition to Close.
type LateReset struct {
	Cookie uint64 // as in that transition
	Netns  uint32
	Local  Endpoint
	Peer   Endpoint
	Code   ResetCode
}

// Follows reports whether r was sent by the socket whose transition to Close is t.
func (r *LateReset) Follows(t *Transition) bool {
	return r.Cookie == t.Cookie && r.Local == t.Local && r.Peer == t.Peer && r.Netns == t.Netns
}
