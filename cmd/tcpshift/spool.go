package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// defaultSpoolSize, in bytes, has room for some 600,000 records.
const defaultSpoolSize = 256 << 20

// spoolOptions are where outputs to sockets keep what their readers did not take.
type spoolOptions struct {
	directory string // "": nowhere
	size      int64  // bytes for each output; 0: defaultSpoolSize
	root      *os.Root
}

func addSpoolFlags(flags *pflag.FlagSet, o *spoolOptions) {
	flags.Var(single(&o.directory, "DIR", parseDirectory), "spool", "keep on disk, in DIR/NAME for each output to a socket, what its reader does not take, and send it later")
	flags.Var(single(&o.size, "SIZE", parseSpoolSize), "spool-size", "how much the spool of one output may have on disk, at least 16MiB (default 256MiB)")
}

func parseDirectory(s string) (string, error) {
	if s == "" {
		return "", errors.New("the path is empty: use that of a directory")
	}
	return s, nil
}

func parseSpoolSize(s string) (int64, error) {
	return parseBytes(s, output.MinSpoolSize, "16MiB")
}

// check rejects options without effect, and outputs whose spools would be one.
func (o *spoolOptions) check(outputs []*outputValue) error {
	if o.directory == "" {
		if o.size != 0 {
			return usagef("--spool-size: there is no spool: add --spool DIR")
		}
		return nil
	}
	before := make(map[string]*outputValue)
	for _, v := range outputs {
		if !v.isRemote() {
			continue
		}
		name := v.spoolName()
		if other := before[name]; other != nil {
			return usagef("--spool: %s and %s have the same directory, %s: give one of them another name=", other.text, v.text, name)
		}
		before[name] = v
	}
	if len(before) == 0 {
		return usagef("--spool: no output goes to a socket: add one such as --output tcp://HOST:PORT")
	}
	return nil
}

// spoolName is the name of the output's directory: that of the output, or one made of its target.
func (v *outputValue) spoolName() string {
	if slices.Contains(v.given, "name") {
		return v.name
	}
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("_.-", r) {
			return r
		}
		return '_'
	}, strings.Replace(v.name, "://", "-", 1))
}

// open opens the directory, and makes it if there is none. The caller must call closeRoot when all outputs are
// open. A wait for a disk that hangs ends with ctx.
func (o *spoolOptions) open(ctx context.Context) (closeRoot func(), err error) {
	if o.directory == "" {
		return func() {}, nil
	}
	type result struct {
		root *os.Root
		err  error
	}
	opened := make(chan result, 1)
	go func() {
		root, err := safeopen.PrivateRoot(o.directory)
		opened <- result{root, err}
	}()
	select {
	case r := <-opened:
		if r.err != nil {
			return nil, explainSpool(r.err)
		}
		o.root = r.root
		if why := safeopen.ReplaceableParent(filepath.Join(o.directory, "spool")); why != "" {
			warn("--spool: " + why + ", so that a later run does not find what it has: use a directory below those that only root can change")
		}
		return func() { _ = o.root.Close() }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("--spool: open %s: it takes too long: stopped waiting at %w", o.directory, context.Cause(ctx))
	}
}

// left returns a message for each directory of a spool that has lines and no output. open must have been called. A
// wait for a disk that hangs ends with ctx.
func (o *spoolOptions) left(ctx context.Context, outputs []*outputValue) (messages []string) {
	if o.root == nil {
		return nil
	}
	var names []string
	for _, v := range outputs {
		if v.isRemote() {
			names = append(names, v.spoolName())
		}
	}
	found, root := make(chan []string, 1), o.root
	go func() { found <- output.LeftSpools(root, names) }()
	select {
	case left := <-found:
		for _, name := range left {
			messages = append(messages, fmt.Sprintf("--spool: %s has lines, and no output sends them: "+
				"configure its output again, or another one with name=%s, or remove the directory", filepath.Join(o.directory, name), name))
		}
	case <-ctx.Done():
	}
	return messages
}

// of returns the spool of an output; nil: it has none.
func (o *spoolOptions) of(v *outputValue) *output.Spool {
	if o.root == nil {
		return nil
	}
	s := &output.Spool{Root: o.root, Name: v.spoolName(), Size: o.size}
	if s.Size == 0 {
		s.Size = defaultSpoolSize
	}
	return s
}

// directories are those in which the spools change files.
func (o *spoolOptions) directories() []string {
	if o.directory == "" {
		return nil
	}
	return []string{o.directory}
}

func explainSpool(err error) error {
	if errors.Is(err, safeopen.ErrRefused) {
		return fmt.Errorf("--spool: %w: name a directory that only you can change, in one that others cannot", err)
	}
	return fmt.Errorf("--spool: %w", privilege.ExplainLimit(err))
}
