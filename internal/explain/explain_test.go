package explain

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestLookup_Spellings(t *testing.T) {
	tests := []struct {
		name, word, want string
	}{
		{"CLOSED of RFC 9293 is CLOSE of the kernel", "CLOSED", "CLOSE"},
		{"LISTEN of RFC 9293 is found", "LISTEN", "LISTEN"},
		{"SYN-SENT of RFC 9293 is found", "SYN-SENT", "SYN_SENT"},
		{"SYN-RECEIVED of RFC 9293 is SYN_RECV of the kernel", "SYN-RECEIVED", "SYN_RECV"},
		{"ESTABLISHED of RFC 9293 is found", "ESTABLISHED", "ESTABLISHED"},
		{"FIN-WAIT-1 of RFC 9293 is found", "FIN-WAIT-1", "FIN_WAIT1"},
		{"FIN-WAIT-2 of RFC 9293 is found", "FIN-WAIT-2", "FIN_WAIT2"},
		{"CLOSE-WAIT of RFC 9293 is found", "CLOSE-WAIT", "CLOSE_WAIT"},
		{"CLOSING of RFC 9293 is found", "CLOSING", "CLOSING"},
		{"LAST-ACK of RFC 9293 is found", "LAST-ACK", "LAST_ACK"},
		{"TIME-WAIT of RFC 9293 is found", "TIME-WAIT", "TIME_WAIT"},
		{"ss calls a closed socket UNCONN", "UNCONN", "CLOSE"},
		{"ss calls an open connection ESTAB", "ESTAB", "ESTABLISHED"},
		{"ss prints SYN-RECV", "SYN-RECV", "SYN_RECV"},
		{"the filter of ss is listening", "listening", "LISTEN"},
		{"lower case without separators is enough", "finwait1", "FIN_WAIT1"},
		{"spaces separate as well", "fin wait 1", "FIN_WAIT1"},
		{"underscores may replace the hyphens of RFC 9293", "fin_wait_1", "FIN_WAIT1"},
		{"the kernel's own name is found", "BOUND_INACTIVE", "BOUND_INACTIVE"},
		{"NEW_SYN_RECV is not SYN_RECV", "new-syn-recv", "NEW_SYN_RECV"},
		{"a kind of alert is found", "time_wait_storm", "time_wait_storm"},
		{"a state is not found as a kind of alert", "TIME_WAIT", "TIME_WAIT"},
		{"an unknown word is not found", "FIN_WAIT3", ""},
		{"a beginning is not enough", "CLO", ""},
		{"nothing is not found", "", ""},
		{"a separator alone is not found", "-", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Lookup(tt.word)
			if got.Name != tt.want || ok != (tt.want != "") {
				t.Errorf("Lookup(%q) = %q, %v, want %q", tt.word, got.Name, ok, tt.want)
			}
		})
	}
}

// Topics come in the order of RFC 9293.
func TestTopics_Order(t *testing.T) {
	want := strings.Fields("CLOSE LISTEN SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 " +
		"CLOSE_WAIT CLOSING LAST_ACK TIME_WAIT NEW_SYN_RECV BOUND_INACTIVE")
	if got := names(); !slices.Equal(got, want) {
		t.Errorf("States() = %v, want %v", got, want)
	}
}

// No spelling means two topics.
func TestLookup_NoAmbiguity(t *testing.T) {
	owner := map[string]string{}
	for _, topic := range everything() {
		for _, word := range append(topic.Aliases, topic.Name) {
			key := strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(word))
			if other, taken := owner[key]; taken && other != topic.Name {
				t.Errorf("%q means both %s and %s", word, other, topic.Name)
			}
			owner[key] = topic.Name
		}
	}
}

// A caller that changes the result does not change the texts.
func TestTopics_CallerOwnsResult(t *testing.T) {
	topics := States()
	topics[0].Name = "changed"
	topics[0].Aliases[0] = "changed"
	if got, ok := Lookup("CLOSED"); !ok || got.Name != "CLOSE" {
		t.Errorf("Lookup(CLOSED) after a change = %q, %v", got.Name, ok)
	}
}

var sentenceEnd = regexp.MustCompile(`[.?!](\s|$)`)

// Each topic has all its parts, and paragraphs of two to six sentences.
func TestTopics_Complete(t *testing.T) {
	for _, topic := range everything() {
		t.Run(topic.Name, func(t *testing.T) {
			if topic.Summary == "" || !strings.HasSuffix(topic.Summary, ".") {
				t.Errorf("summary %q is not a sentence", topic.Summary)
			}
			ofTransitions := topic.Name != "alerts_suppressed" // it is about other alerts
			if ofTransitions == (len(topic.Transitions) == 0) || len(topic.Sources) == 0 {
				t.Error("transitions or sources are missing")
			}
			for _, text := range []string{topic.Meaning, topic.Normal, topic.Remedy} {
				n := len(sentenceEnd.FindAllString(text, -1))
				if n < 2 || n > 6 || !strings.HasSuffix(text, ".") {
					t.Errorf("%d sentences, want 2 to 6: %q", n, text)
				}
			}
		})
	}
}

// Texts are single paragraphs of ASCII with closed backquotes.
func TestTopics_PlainASCII(t *testing.T) {
	for _, topic := range everything() {
		for _, text := range allTexts(topic) {
			if text != strings.Join(strings.Fields(text), " ") {
				t.Errorf("%s: not one paragraph with single spaces: %q", topic.Name, text)
			}
			if strings.Count(text, "`")%2 != 0 {
				t.Errorf("%s: a backquote is open: %q", topic.Name, text)
			}
			if i := strings.IndexFunc(text, func(r rune) bool { return r > '~' }); i >= 0 {
				t.Errorf("%s: not ASCII: %q", topic.Name, text[i:])
			}
		}
	}
}

func everything() []Topic { return slices.Concat(States(), Alerts()) }

func names() []string {
	var out []string
	for _, topic := range States() {
		out = append(out, topic.Name)
	}
	return out
}

func paragraphs(topic Topic) []string {
	return []string{topic.Summary, topic.Meaning, topic.Normal, topic.Remedy}
}

func allTexts(topic Topic) []string {
	return slices.Concat(paragraphs(topic), topic.Transitions, topic.Sources)
}
