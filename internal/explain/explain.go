// Package explain holds what "tcpshift explain" says: for each TCP state
// and each kind of alert, what it is, when it is normal and what to do when it piles up.
//
// It hands out values and nothing else. It must not read the host, print, or
// ask how wide a terminal is: the caller knows the width and owns the output.
// A sentence belongs here only if it holds on every kernel that tcpshift
// supports (Linux 5.10 to 7.1), or says from which kernel on it does.
package explain

import (
	"slices"
	"strings"
)

// Topic is one explained state or kind of alert. Meaning, Normal and Remedy are paragraphs of
// two to six sentences without line breaks; commands stand in backquotes.
type Topic struct {
	Name        string   // the kernel's name, as the records spell it: FIN_WAIT1
	Aliases     []string // other spellings: RFC 9293, ss
	Summary     string   // one line
	Meaning     string   // what it is
	Normal      string   // when it is nothing to worry about
	Remedy      string   // what to do when it piles up
	Transitions []string // ways in and out in the stream: "A -> B: why"
	Sources     []string // where to check what is said here
}

// Topics returns every topic: the textbook's states in the textbook's order,
// then the two that only the kernel has. The caller may change what it gets.
func Topics() []Topic {
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

// Lookup finds a topic by its name or an alias. Case does not matter, and
// neither do hyphens, underscores and spaces: "fin wait 1" is FIN_WAIT1.
func Lookup(word string) (Topic, bool) {
	want := fold(word)
	for _, topic := range slices.Concat(Topics(), Alerts()) {
		if fold(topic.Name) == want || slices.ContainsFunc(topic.Aliases, func(alias string) bool {
			return fold(alias) == want
		}) {
			return topic, true
		}
	}
	return Topic{}, false
}

// separators are what the RFC, the kernel and ss disagree about.
var separators = strings.NewReplacer("-", "", "_", "", " ", "")

func fold(word string) string {
	return strings.ToLower(separators.Replace(word))
}
