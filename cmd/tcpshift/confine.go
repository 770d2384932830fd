package main

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/sandbox"
)

func addSandboxFlag(flags *pflag.FlagSet, o *traceOptions) {
	flags.BoolVar(&o.sandbox, "sandbox", false, "after the start, give up the system calls (seccomp) and files (Landlock) that tcpshift does not need")
}

// memoryBudget is how many bytes of memory this process needs at most, without what the outputs, the
// flight recorder, the live page and a recording keep. An ordinary trace takes a tenth of it.
const memoryBudget = 256 << 20

// confine gives up what the trace does not need after its start. It returns what the start record
// reports of the sandbox: nothing without --sandbox.
func (o *traceOptions) confine(p *probe.Probe, outs openOutputs) (parts []record.Feature) {
	kept := outs.maxKept() + o.recorder.maxKept() + o.page.maxKept()
	if o.recording != "" {
		kept += recordingQueue
	}
	sandbox.LimitMemory(memoryBudget + 2*kept)
	f := sandbox.Features{
		Maps: sandbox.MapsNeedCapability(), Programs: o.mayReloadFilters(), Namespaces: o.wants("alert") || o.updates > 0 || o.metrics.wanted(),
		Listen: o.metrics.wanted() || o.page.wanted(), Command: o.command.wanted(), Processes: o.wantsProcesses(),
	}
	p.ListenPort(0) // the first call loads a program, to find out whether the kernel can run one
	if o.sandbox {
		_, _ = time.Now().Zone()   // reads a file, once
		boottime.NamespaceOffset() // the same
		f.Reopen = outs.reopenDirectories(o.follow)
		f.Unix, f.TCP = outs.remotes()
		if path := serviceSocket(); path != "" {
			f.Unix = append(f.Unix, path)
		}
		if o.path != "" {
			f.Read = []string{filepath.Dir(o.path)}
		}
		if o.metrics.receiver != nil {
			f.TCP = append(f.TCP, o.metrics.receiver.path)
		}
		f.Rotate = outs.rotateDirectories()
		f.Spool = slices.Concat(o.spool.directories(), o.recorder.directories())
	}
	if err := sandbox.DropPrivileges(f); err != nil {
		warn("it keeps privileges that it no longer needs: " + err.Error())
	}
	if !o.sandbox {
		return nil
	}
	for _, part := range sandbox.Restrict(f) {
		r := record.Feature{Name: part.Name}
		if part.Err != nil {
			r.OffReason = part.Err.Error()
			if !part.Expected {
				warn("--sandbox: it runs without " + part.Name + ": " + r.OffReason)
			}
		}
		parts = append(parts, r)
	}
	return parts
}

// reopenDirectories returns the directories in which SIGHUP opens outputs again. With follow, a
// directory to which a symbolic link leads is one of them.
func (all openOutputs) reopenDirectories(follow bool) (directories []string) {
	for _, each := range all {
		if !each.out.Reopens() {
			continue
		}
		directories = append(directories, filepath.Dir(each.path))
		if follow { // the file may be somewhere else
			if target, err := filepath.EvalSymlinks(each.path); err == nil {
				directories = append(directories, filepath.Dir(target))
			}
		}
	}
	return directories
}

// remotes returns the sockets that outputs connect to: the paths of Unix sockets, and HOST:PORT.
func (all openOutputs) remotes() (paths, addresses []string) {
	for _, each := range all {
		switch each.scheme {
		case schemeUnix, schemeUnixgram, schemeJournald:
			paths = append(paths, each.path)
		case schemeTCP, schemeTLS, schemeOTLP, schemeOTLPS, schemeOTLPHTTP, schemeOTLPSHTTP:
			addresses = append(addresses, each.path)
		}
	}
	return paths, addresses
}

// rotateDirectories returns the directories of the files that are rotated.
func (all openOutputs) rotateDirectories() (directories []string) {
	for _, each := range all {
		if each.rotate.wanted() {
			directories = append(directories, filepath.Dir(each.path))
		}
	}
	return directories
}
