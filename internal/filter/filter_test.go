package filter

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// good are words and their values.
type good[T comparable] map[string]T

// bad are words and their error messages.
type bad map[string]string

func checkWords[T comparable](t *testing.T, parse func(string) (T, error), good good[T], bad bad) {
	t.Helper()
	for word, want := range good {
		if got, err := parse(word); err != nil || got != want {
			t.Errorf("%q returns %v, %v; want %v", word, got, err, want)
		}
	}
	for word, want := range bad {
		got, err := parse(word)
		switch {
		case err == nil:
			t.Errorf("%q returns %v, want the error %q", word, got, want)
		case err.Error() != want:
			t.Errorf("%q returns the error\n%s\nwant\n%s", word, err, want)
		case strings.Contains(err.Error(), "\n"):
			t.Errorf("%q returns an error of more than one line: %q", word, err)
		}
	}
}

// A family is 4 or 6.
func TestParse_Family(t *testing.T) {
	checkWords(t, ParseFamily, good[byte]{"4": 4, "6": 6}, bad{
		"":     `"" is not an address family: use 4 or 6`,
		"5":    `"5" is not an address family: use 4 or 6`,
		"46":   `"46" is not an address family: use 4 or 6`,
		"ipv4": `"ipv4" is not an address family: use 4 or 6`,
		"6\n":  `"6\n" is not an address family: use 4 or 6`,
	})
}

// A port is a number or a range.
func TestParse_Ports(t *testing.T) {
	noPort := func(word string) string { return word + " is not a port: use 1 to 65535, or a range such as 8000-8999" }
	checkWords(t, ParsePorts, good[PortRange]{
		"1": {1, 1}, "443": {443, 443}, "65535": {65535, 65535}, "8000-8999": {8000, 8999}, "1-65535": {1, 65535},
		"80-80": {80, 80}, "0080": {80, 80},
	}, bad{
		"":           noPort(`""`),
		"0":          noPort(`"0"`),
		"65536":      noPort(`"65536"`),
		"-1":         noPort(`""`),
		"+80":        noPort(`"+80"`),
		"http":       noPort(`"http"`),
		" 80":        noPort(`" 80"`),
		"80-":        noPort(`""`),
		"0-80":       noPort(`"0"`),
		"80-65536":   noPort(`"65536"`),
		"80-90-100":  noPort(`"90-100"`),
		"80..90":     noPort(`"80..90"`),
		"0x50":       noPort(`"0x50"`),
		"9000-8000":  `range "9000-8000" is reversed: write 8000-9000`,
		"65535-1":    `range "65535-1" is reversed: write 1-65535`,
		"80\n":       noPort(`"80\n"`),
		"4294967376": noPort(`"4294967376"`),
	})
}

// An address is a single one or a CIDR without host bits.
func TestParse_Addr(t *testing.T) {
	prefix := netip.MustParsePrefix
	noAddress := func(word string) string {
		return word + " is not an address: use one such as 192.0.2.1, 2001:db8::1 or 10.0.0.0/8"
	}
	noCIDR := func(word string) string { return word + " is not a CIDR: use one such as 10.0.0.0/8 or 2001:db8::/32" }
	checkWords(t, ParseAddr, good[netip.Prefix]{
		"192.0.2.1":              prefix("192.0.2.1/32"),
		"0.0.0.0":                prefix("0.0.0.0/32"),
		"2001:db8::1":            prefix("2001:db8::1/128"),
		"2001:DB8:0:0::1":        prefix("2001:db8::1/128"),
		"::":                     prefix("::/128"),
		"10.0.0.0/8":             prefix("10.0.0.0/8"),
		"0.0.0.0/0":              prefix("0.0.0.0/0"),
		"192.0.2.1/32":           prefix("192.0.2.1/32"),
		"2001:db8::/32":          prefix("2001:db8::/32"),
		"::/0":                   prefix("::/0"),
		"::ffff:192.0.2.1":       prefix("192.0.2.1/32"),
		"::ffff:c000:201":        prefix("192.0.2.1/32"),
		"::ffff:10.0.0.0/104":    prefix("10.0.0.0/8"),
		"::ffff:0.0.0.0/96":      prefix("0.0.0.0/0"),
		"::ffff:192.0.2.1/128":   prefix("192.0.2.1/32"),
		"::/80":                  prefix("::/80"),
		"64:ff9b::192.0.2.1":     prefix("64:ff9b::c000:201/128"),
		"64:ff9b::192.0.2.0/120": prefix("64:ff9b::c000:200/120"),
	}, bad{
		"":               noAddress(`""`),
		"localhost":      noAddress(`"localhost"`),
		"192.0.2":        noAddress(`"192.0.2"`),
		"192.0.2.256":    noAddress(`"192.0.2.256"`),
		"192.0.2.01":     noAddress(`"192.0.2.01"`),
		"192.0.2.1:80":   noAddress(`"192.0.2.1:80"`),
		"[::1]":          noAddress(`"[::1]"`),
		"fe80::1%eth0":   noAddress(`"fe80::1%eth0"`),
		" 192.0.2.1":     noAddress(`" 192.0.2.1"`),
		"10.0.0.0/33":    noCIDR(`"10.0.0.0/33"`),
		"10.0.0.0/":      noCIDR(`"10.0.0.0/"`),
		"10.0.0.0/08":    noCIDR(`"10.0.0.0/08"`),
		"10.0.0.0/8/8":   noCIDR(`"10.0.0.0/8/8"`),
		"10/8":           noCIDR(`"10/8"`),
		"::/129":         noCIDR(`"::/129"`),
		"fe80::%eth0/64": noCIDR(`"fe80::%eth0/64"`),
		"/":              noCIDR(`"/"`),
		"10.1.2.3/8":     `"10.1.2.3/8" has host bits: write 10.0.0.0/8, or 10.1.2.3 for that single address`,
		"2001:db8::1/32": `"2001:db8::1/32" has host bits: write 2001:db8::/32, or 2001:db8::1 for that single address`,
		"0.0.0.1/0":      `"0.0.0.1/0" has host bits: write 0.0.0.0/0, or 0.0.0.1 for that single address`,
		"::ffff:10.0.0.1/104": `"::ffff:10.0.0.1/104" has host bits: write ::ffff:10.0.0.0/104, ` +
			`or ::ffff:10.0.0.1 for that single address`,
	})
}

// The two words that the error for host bits proposes are valid.
func TestParse_AddrProposal(t *testing.T) {
	for _, word := range []string{"10.1.2.3/8", "2001:db8::1/32", "::ffff:10.0.0.1/104", "::ffff:10.0.0.0/90"} {
		_, err := ParseAddr(word)
		if err == nil {
			t.Errorf("%q is accepted, want an error", word)
			continue
		}
		_, proposal, _ := strings.Cut(err.Error(), "write ")
		cidr, rest, _ := strings.Cut(proposal, ", or ")
		addr, _, _ := strings.Cut(rest, " ")
		for _, word := range []string{cidr, addr} {
			if _, err := ParseAddr(word); err != nil {
				t.Errorf("the message proposes %q, which is an error: %v", word, err)
			}
		}
	}
}

// A process id is one that the kernel can assign.
func TestParse_PID(t *testing.T) {
	noPID := func(word string) string { return word + " is not a process id: use 1 to 4194304" }
	checkWords(t, ParsePID, good[uint32]{"1": 1, "4242": 4242, "4194304": 4194304}, bad{
		"":            noPID(`""`),
		"0":           noPID(`"0"`),
		"-1":          noPID(`"-1"`),
		"4194305":     noPID(`"4194305"`),
		"18446744073": noPID(`"18446744073"`),
		"self":        noPID(`"self"`),
		"1.0":         noPID(`"1.0"`),
	})
}

// A process name has 1 to 15 bytes, and no NUL.
func TestParse_Comm(t *testing.T) {
	checkWords(t, ParseComm, good[string]{
		"curl": "curl", "tmux: server": "tmux: server", "fifteen-bytes-1": "fifteen-bytes-1", "grün": "grün", "\xff": "\xff",
	}, bad{
		"":                   `the process name is empty: use 1 to 15 bytes`,
		"sixteen-bytes-16":   `"sixteen-bytes-16" has 16 bytes, but the kernel keeps only 15: write "sixteen-bytes-1"`,
		"\n2345678901234567": `"\n2345678901234567" has 17 bytes, but the kernel keeps only 15: write "\n23456789012345"`,
		"a\x00b":             `"a\x00b" contains a NUL, which ends a name in the kernel`,
	})
}

// A state has its name in the kernel, RFC 9293 or ss(8).
func TestParse_State(t *testing.T) {
	const known = "use ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, " +
		"CLOSING, NEW_SYN_RECV, BOUND_INACTIVE"
	states := good[tcp.State]{}
	for _, s := range tcp.States() {
		states[s.String()] = s
		states[strings.ToLower(s.String())] = s
	}
	states["ESTAB"], states["FIN-WAIT-1"], states["time-wait"] = tcp.Established, tcp.FinWait1, tcp.TimeWait
	checkWords(t, ParseState, states, bad{
		"":         `"" is not a state: ` + known,
		"FIN_WAIT": `"FIN_WAIT" is not a state: ` + known,
		"STATE_17": `"STATE_17" is not a state: ` + known,
		"7":        `"7" is not a state: ` + known,
	})
}

// A role has its name in records.
func TestParse_Role(t *testing.T) {
	checkWords(t, ParseRole, good[tcp.Role]{
		"client": tcp.RoleClient, "server": tcp.RoleServer, "listener": tcp.RoleListener,
	}, bad{
		"":       `"" is not a role: use client, server, listener`,
		"Client": `"Client" is not a role: use client, server, listener`,
		"ROLE_9": `"ROLE_9" is not a role: use client, server, listener`,
	})
}

// A list is separated by commas, and adds to the values of an earlier one.
func TestList_Appends(t *testing.T) {
	var ports []PortRange
	for _, tt := range []struct {
		words string
		want  []PortRange
	}{
		{"80", []PortRange{{80, 80}}},
		{"443, 8000-8999", []PortRange{{80, 80}, {443, 443}, {8000, 8999}}},
		{"80,80,1", []PortRange{{80, 80}, {443, 443}, {8000, 8999}, {1, 1}}},
	} {
		if err := AppendList(&ports, tt.words, ParsePorts); err != nil || !slices.Equal(ports, tt.want) {
			t.Fatalf("after %q: got %v, %v; want %v", tt.words, ports, err, tt.want)
		}
	}
	for words, want := range map[string]string{
		"":       `"" is not a port: use 1 to 65535, or a range such as 8000-8999`,
		"80,":    `"" is not a port: use 1 to 65535, or a range such as 8000-8999`,
		"80,,90": `"" is not a port: use 1 to 65535, or a range such as 8000-8999`,
		"80;90":  `"80;90" is not a port: use 1 to 65535, or a range such as 8000-8999`,
	} {
		if err := AppendList(&ports, words, ParsePorts); err == nil || err.Error() != want {
			t.Errorf("%q: got the error %v, want %q", words, err, want)
		}
	}
}
