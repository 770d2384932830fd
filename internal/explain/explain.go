// Package explain has the texts of "tcpshift explain": for each TCP state and each kind
// of alert, what it is, when it is normal, and what to do when it piles up.
//
// It returns values only. It must not read the host, print, or find the width of a
// terminal: the caller passes the width and writes the output. Each sentence must be true
// on every kernel that tcpshift supports (Linux 5.10 to 7.1), or name the kernel from
// which on it is true.
package explain

import (
	"slices"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Topic explains one state or kind of alert. Meaning, Normal and Remedy are paragraphs of
// two to six sentences without line breaks, with commands in backquotes.
type Topic struct {
	Name        string   // a state as the kernel and the records spell it, such as FIN_WAIT1; or a kind of alert
	Aliases     []string // other spellings: RFC 9293, ss
	Summary     string   // one line
	Meaning     string   // what it is
	Normal      string   // when it is normal
	Remedy      string   // what to do when it piles up
	Transitions []string // transitions into and out of it: "A -> B: why"
	Sources     []string // where to check the text
}

// States returns a topic for each state: CLOSE, then the other states of RFC 9293 in its
// order, then the two that only the kernel has. The caller may change the result.
func States() []Topic {
	return []Topic{
		closed(),
		listen(),
		synSent(),
		synRecv(),
		established(),
		finWait1(),
		finWait2(),
		closeWait(),
		closing(),
		lastAck(),
		timeWait(),
		newSynRecv(),
		boundInactive(),
	}
}

// Lookup finds a topic by its name or an alias, and reports whether there is one. It
// ignores case, hyphens, underscores and spaces: "fin wait 1" is FIN_WAIT1.
func Lookup(word string) (Topic, bool) {
	for _, topic := range slices.Concat(States(), Alerts()) {
		if slices.ContainsFunc(append(topic.Aliases, topic.Name), func(name string) bool { return tcp.SameName(name, word) }) {
			return topic, true
		}
	}
	return Topic{}, false
}
