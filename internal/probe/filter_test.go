package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// prefixesOf parses prefixes as the command line does.
func prefixesOf(t *testing.T, words ...string) (all []netip.Prefix) {
	t.Helper()
	for _, word := range words {
		if err := filter.AppendList(&all, word, filter.ParseAddr); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// bytesOf returns the bytes of a key, which the kernel compares.
func bytesOf(t *testing.T, key any) []byte {
	t.Helper()
	b, err := binary.Append(nil, binary.NativeEndian, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func nativeUint32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// A prefix key has the layout that the trie compares.
func TestFilter_PrefixKeyLayout(t *testing.T) {
	for _, tt := range []struct {
		side   int
		word   string
		bits   uint32 // compared: 32 of side and family, then the prefix's
		header []byte // side, family, zero
		addr   []byte // in network order, IPv4 first and then zeros
	}{
		{0, "10.0.0.0/8", 40, []byte{0, 4, 0, 0}, []byte{10}},
		{1, "192.0.2.1", 64, []byte{1, 4, 0, 0}, []byte{192, 0, 2, 1}},
		{2, "0.0.0.0/0", 32, []byte{2, 4, 0, 0}, nil},
		{0, "::ffff:192.0.2.0/120", 56, []byte{0, 4, 0, 0}, []byte{192, 0, 2}},
		{1, "2001:db8::/32", 64, []byte{1, 6, 0, 0}, []byte{0x20, 1, 0xd, 0xb8}},
		{2, "2001:db8::1", 160, []byte{2, 6, 0, 0}, []byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
		{0, "::/0", 32, []byte{0, 6, 0, 0}, nil},
	} {
		want := slices.Concat(nativeUint32(tt.bits), tt.header, tt.addr, make([]byte, 16-len(tt.addr)))
		got := bytesOf(t, prefixKey(tt.side, prefixesOf(t, tt.word)[0]))
		if !slices.Equal(got, want) {
			t.Errorf("%s on side %d:\ngot  %v\nwant %v", tt.word, tt.side, got, want)
		}
	}
}

// Each prefix is inserted for the side that the filter names.
func TestFilter_PrefixSides(t *testing.T) {
	f := &filter.Filter{
		Addrs: prefixesOf(t, "10.0.0.0/8,::1"), LocalAddrs: prefixesOf(t, "10.1.0.0/16"), PeerAddrs: prefixesOf(t, "10.2.0.0/16"),
	}
	var got []string
	for _, key := range prefixes(f) {
		got = append(got, fmt.Sprintf("side %d family %d bits %d", key.Side, key.Family, key.Prefixlen-32))
	}
	want := []string{
		"side 0 family 4 bits 8", "side 0 family 6 bits 128", "side 1 family 4 bits 16", "side 2 family 4 bits 16",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// A member key is a kind and a value, filled up with zeros.
func TestFilter_MemberKeyLayout(t *testing.T) {
	id := func(kind uint32, v uint64) []byte {
		return slices.Concat(nativeUint32(kind), binary.NativeEndian.AppendUint64(nil, v), make([]byte, 8))
	}
	comm := func(name string) []byte {
		return slices.Concat(nativeUint32(2), []byte(name), make([]byte, 16-len(name)))
	}
	f := &filter.Filter{
		Netns: []uint32{4026531840}, PIDs: []uint32{1, 4 << 20}, Comms: []string{"curl", "fifteen-bytes-1"},
		Cgroups: []uint64{1<<40 + 7},
	}
	want := [][]byte{
		id(0, 4026531840), id(1, 1), id(1, 4<<20), comm("curl"), comm("fifteen-bytes-1"), id(3, 1<<40+7),
	}
	keys := members(f)
	if len(keys) != len(want) {
		t.Fatalf("%d keys, want %d", len(keys), len(want))
	}
	for i, key := range keys {
		if got := bytesOf(t, key); !slices.Equal(got, want[i]) {
			t.Errorf("key %d:\ngot  %v\nwant %v", i, got, want[i])
		}
	}
	if got := members(&filter.Filter{}); len(got) != 0 {
		t.Errorf("without a filter the keys are %v, want none", got)
	}
}

// Without a filter every filter constant is off.
func TestFilter_None(t *testing.T) {
	spec := configured(t, Options{BufferSize: 1 << 20}, nil)
	for _, name := range []string{
		bpfobj.ProbeVarFilterFamily, bpfobj.ProbeVarFilterRoles, bpfobj.ProbeVarFilterPorts, bpfobj.ProbeVarFilterAddrs,
	} {
		checkConstant[uint8](t, spec, name, 0)
	}
	for _, name := range []string{
		bpfobj.ProbeVarFilterNetns, bpfobj.ProbeVarFilterPid, bpfobj.ProbeVarFilterComm, bpfobj.ProbeVarFilterCgroup,
		bpfobj.ProbeVarFilterUid, bpfobj.ProbeVarExcludeNetns, bpfobj.ProbeVarExcludePid, bpfobj.ProbeVarExcludeComm,
		bpfobj.ProbeVarExcludeCgroup, bpfobj.ProbeVarExcludeUid,
		bpfobj.ProbeVarFilterStates, bpfobj.ProbeVarExcludeSelf, bpfobj.ProbeVarHasSocketStorage, bpfobj.ProbeVarHasSocketCookie,
	} {
		checkConstant(t, spec, name, false)
	}
}

// A transition must match all filters on states.
func TestFilter_States(t *testing.T) {
	var some tcp.Transitions
	some.Add([]tcp.State{tcp.SynSent, tcp.Close}, []tcp.State{tcp.Established, tcp.Close})
	for _, tt := range []struct {
		name string
		f    filter.Filter
		want [32]uint32
	}{
		{"new", filter.Filter{NewStates: []tcp.State{tcp.SynSent}}, everyOld(1 << 2)},
		{"old and new", filter.Filter{OldStates: []tcp.State{tcp.Close}, NewStates: []tcp.State{tcp.SynSent}}, [32]uint32{7: 1 << 2}},
		{"pairs", filter.Filter{Transitions: &some}, [32]uint32{2: 1<<1 | 1<<7, 7: 1<<1 | 1<<7}},
		{"pairs and new", filter.Filter{Transitions: &some, NewStates: []tcp.State{tcp.Close}}, [32]uint32{2: 1 << 7, 7: 1 << 7}},
		{"pairs and old", filter.Filter{Transitions: &some, OldStates: []tcp.State{tcp.Close}}, [32]uint32{7: 1<<1 | 1<<7}},
		{"no pair", filter.Filter{Transitions: new(tcp.Transitions)}, [32]uint32{}},
	} {
		spec := configured(t, Options{Filter: tt.f, BufferSize: 1 << 20}, nil)
		checkConstant(t, spec, bpfobj.ProbeVarFilterStates, true)
		checkConstant(t, spec, bpfobj.ProbeVarWantedStates, tt.want)
	}
}

// everyOld returns the same bits for each old state.
func everyOld(bits uint32) (all [32]uint32) {
	for i := range all {
		all[i] = bits
	}
	return all
}

// Each filter sets its own constant and no other.
func TestFilter_Constants(t *testing.T) {
	f := filter.Filter{Family: 6}
	f.LocalPorts = []filter.PortRange{{First: 80, Last: 80}}
	f.Addrs, f.PeerAddrs = prefixesOf(t, "::1"), prefixesOf(t, "::1,10.0.0.0/8")
	f.Comms = []string{"curl"}
	f.OldStates = []tcp.State{tcp.Established, tcp.BoundInactive}
	f.Roles = []tcp.Role{tcp.RoleClient, tcp.RoleListener}
	spec := configured(t, Options{Filter: f, BufferSize: 1 << 20}, Features{{Name: SocketCookie}})
	checkConstant[uint8](t, spec, bpfobj.ProbeVarFilterFamily, 6)
	checkConstant[uint8](t, spec, bpfobj.ProbeVarFilterPorts, 0b010)
	checkConstant[uint8](t, spec, bpfobj.ProbeVarFilterAddrs, 0b101)
	checkConstant[uint8](t, spec, bpfobj.ProbeVarFilterRoles, 0b1010)
	checkConstant(t, spec, bpfobj.ProbeVarFilterStates, true)
	checkConstant(t, spec, bpfobj.ProbeVarWantedStates, [32]uint32{1: 1<<32 - 1, 13: 1<<32 - 1})
	checkConstant(t, spec, bpfobj.ProbeVarFilterComm, true)
	checkConstant(t, spec, bpfobj.ProbeVarFilterPid, false)
	checkConstant(t, spec, bpfobj.ProbeVarFilterNetns, false)
	checkConstant(t, spec, bpfobj.ProbeVarFilterCgroup, false)
	checkConstant(t, spec, bpfobj.ProbeVarHasSocketCookie, true)
	checkConstant(t, spec, bpfobj.ProbeVarHasSocketStorage, false)
	checkConstant[uint64](t, spec, bpfobj.ProbeVarWakeupBytes, 1<<18)
	if got := spec.Maps[bpfobj.ProbeMapFilterPrefixes].MaxEntries; got != 3 {
		t.Errorf("there is room for %d prefixes, want 3", got)
	}
	if got := spec.Maps[bpfobj.ProbeMapFilterMembers].MaxEntries; got != 1 {
		t.Errorf("there is room for %d members, want 1", got)
	}
	if rings := spec.Maps[bpfobj.ProbeMapRings]; rings.MaxEntries != 1 || rings.InnerMap.MaxEntries != 1<<20 {
		t.Errorf("there are %d rings of %d bytes, want one of %d", rings.MaxEntries, rings.InnerMap.MaxEntries, 1<<20)
	}
}

// An exclusion sets its own constant, and not that of the filter that passes the same value.
func TestFilter_ExclusionConstants(t *testing.T) {
	f := filter.Filter{Not: filter.Exclusions{Netns: []uint32{1}, Comms: []string{"curl"}, UIDs: []uint32{0}}}
	f.Not.PeerPorts = []filter.PortRange{{First: 80, Last: 80}}
	f.Not.Addrs = prefixesOf(t, "::1")
	f.LocalPorts = f.Not.PeerPorts
	spec := configured(t, Options{Filter: f, BufferSize: 1 << 20}, nil)
	checkConstant[uint8](t, spec, bpfobj.ProbeVarFilterPorts, 0b100010)
	checkConstant[uint8](t, spec, bpfobj.ProbeVarFilterAddrs, 0b001000)
	for _, name := range []string{bpfobj.ProbeVarExcludeNetns, bpfobj.ProbeVarExcludeComm, bpfobj.ProbeVarExcludeUid} {
		checkConstant(t, spec, name, true)
	}
	for _, name := range []string{
		bpfobj.ProbeVarExcludePid, bpfobj.ProbeVarExcludeCgroup, bpfobj.ProbeVarFilterNetns, bpfobj.ProbeVarFilterComm, bpfobj.ProbeVarFilterUid,
	} {
		checkConstant(t, spec, name, false)
	}
	if got := spec.Maps[bpfobj.ProbeMapFilterMembers].MaxEntries; got != 3 {
		t.Errorf("there is room for %d members, want 3", got)
	}
}

// filledMaps creates and fills the filter maps in the kernel, as Open does.
func filledMaps(t *testing.T, f *filter.Filter) map[string]*ebpf.Map {
	t.Helper()
	if os.Geteuid() != 0 {
		const why = "creating BPF maps needs root"
		if os.Getenv("CI") == "true" {
			t.Fatal(why + ", and CI=true wants every test to run")
		}
		t.Skip(why)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec := configured(t, Options{Filter: *f, BufferSize: 1 << 20}, nil)
	newMap := func(name string) *ebpf.Map {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			t.Fatalf("create %s: %v", name, err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	maps := map[string]*ebpf.Map{}
	for _, name := range []string{
		bpfobj.ProbeMapFilterPortSets, bpfobj.ProbeMapFilterPrefixes, bpfobj.ProbeMapFilterMembers,
	} {
		maps[name] = newMap(name)
	}
	if err := fillFilterMaps(maps, f); err != nil {
		t.Fatal(err)
	}
	return maps
}

// A port set has exactly the ports of its side.
func TestFilter_PortSets(t *testing.T) {
	f := &filter.Filter{
		Ports:      []filter.PortRange{{First: 1, Last: 1}, {First: 63, Last: 65}, {First: 65535, Last: 65535}},
		LocalPorts: []filter.PortRange{{First: 8000, Last: 8999}, {First: 8500, Last: 9100}},
		Not:        filter.Exclusions{Ports: []filter.PortRange{{First: 22, Last: 22}}},
	}
	maps := filledMaps(t, f)
	for side, wanted := range []func(port int) bool{
		func(port int) bool { return port == 1 || port >= 63 && port <= 65 || port == 65535 },
		func(port int) bool { return port >= 8000 && port <= 9100 },
		func(int) bool { return false },
		func(port int) bool { return port == 22 },
		func(int) bool { return false },
		func(int) bool { return false },
	} {
		var set bpfobj.ProbePortSet
		if err := maps[bpfobj.ProbeMapFilterPortSets].Lookup(uint32(side), &set); err != nil {
			t.Fatal(err)
		}
		for port := range 1 << 16 {
			if got := set.Bits[port/64]>>(port%64)&1 == 1; got != wanted(port) {
				t.Errorf("side %d has port %d: %v, want %v", side, port, got, wanted(port))
			}
		}
	}
}

// The trie matches exactly the addresses of its prefixes.
func TestFilter_PrefixTrie(t *testing.T) {
	maps := filledMaps(t, &filter.Filter{
		Addrs:     prefixesOf(t, "10.0.0.0/8,192.0.2.1,2001:db8::/32"),
		PeerAddrs: prefixesOf(t, "0.0.0.0/0,::1"),
	})
	const either, local, peer = 0, 1, 2
	for _, tt := range []struct {
		side int
		addr string
		want bool
	}{
		{either, "10.0.0.0", true}, {either, "10.255.255.255", true}, {either, "11.0.0.0", false}, {either, "9.255.255.255", false},
		{either, "192.0.2.1", true}, {either, "192.0.2.0", false}, {either, "2001:db8::1", true}, {either, "2001:db9::1", false},
		{either, "::1", false}, {either, "a00::", false}, // the bytes of 10.0.0.0, but IPv6
		{local, "10.0.0.0", false}, {local, "2001:db8::1", false},
		{peer, "203.0.113.9", true}, {peer, "::1", true}, {peer, "::2", false}, {peer, "2001:db8::1", false},
	} {
		addr := netip.MustParseAddr(tt.addr)
		key := prefixKey(tt.side, netip.PrefixFrom(addr, addr.BitLen())) // as addr_in() of bpf/filter.h asks
		var value uint8
		err := maps[bpfobj.ProbeMapFilterPrefixes].Lookup(&key, &value)
		if got := err == nil; got != tt.want {
			t.Errorf("side %d finds %s: %v (%v), want %v", tt.side, tt.addr, got, err, tt.want)
		}
	}
}

// The map of members has exactly the members of the filter.
func TestFilter_MemberMap(t *testing.T) {
	f := &filter.Filter{PIDs: []uint32{1, 2, 3}, Comms: []string{"curl"}, Netns: []uint32{1}}
	maps := filledMaps(t, f)
	var key bpfobj.ProbeMemberKey
	var value uint8
	var got []string
	for entries := maps[bpfobj.ProbeMapFilterMembers].Iterate(); entries.Next(&key, &value); {
		got = append(got, string(bytesOf(t, key)))
	}
	var want []string
	for _, k := range members(f) {
		want = append(want, string(bytesOf(t, k)))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the map holds %q, want %q", got, want)
	}
}
