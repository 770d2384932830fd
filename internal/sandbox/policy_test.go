package sandbox

import (
	"runtime"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// Both architectures have every system call of the filter: one with an unknown name is not
// installed at all.
func TestPolicy_KnownNames(t *testing.T) {
	for _, architecture := range []string{"amd64", "arm64"} {
		info, err := arch.GetInfo(architecture)
		if err != nil {
			t.Fatal(err)
		}
		p := policy(Features{Namespaces: true, Reopen: []string{"/"}, Rotate: []string{"/"}, Unix: []string{"/x"}, TCP: []string{"h:1"}}, 1, architecture)
		for _, group := range p.Syscalls {
			names := slices.Clone(group.Names)
			for _, conditional := range group.NamesWithCondtions {
				names = append(names, conditional.Name)
			}
			for _, name := range names {
				if _, known := info.SyscallNames[name]; !known {
					t.Errorf("%s has no system call %s", architecture, name)
				}
			}
		}
	}
}

// With all features together the filter can be made: the library refuses one that has a system call twice.
func TestPolicy_AllFeatures(t *testing.T) {
	all := Features{
		Maps: true, Namespaces: true, Command: true, Processes: true, Listen: true, Reopen: []string{"/"}, Rotate: []string{"/"},
		Spool: []string{"/"}, Unix: []string{"/x"}, TCP: []string{"h:1"},
	}
	p := policy(all, 1, runtime.GOARCH)
	if _, err := p.Assemble(); err != nil {
		t.Error(err)
	}
}
