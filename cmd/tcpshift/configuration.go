package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/config"
)

// configOptions are the flags that select a configuration. Without one of them no file and no variable is
// read.
type configOptions struct {
	path, profile string
	given         *config.Layer // the command line
}

// The names of the flags and keys that have a meaning for the configuration itself.
const (
	flagConfig  = "config"
	flagProfile = "profile"
	flagOutput  = "output"
	keyOutputs  = "outputs" // of flagOutput
	keyTarget   = "target"  // of an output
)

func addConfigFlags(flags *pflag.FlagSet, o *configOptions) {
	flags.Var(single(&o.path, "PATH", parsePath), flagConfig, "read the configuration file at PATH, the files *.yaml in the directory PATH.d (without .yaml), and the variables TCPSHIFT_*; the command line wins")
	flags.Var(single(&o.profile, "NAME", parseText), flagProfile, "begin with the settings of a profile: "+strings.Join(config.Profiles(), ", "))
	o.given = new(config.Layer)
	flags.VisitAll(func(f *pflag.Flag) { f.Value = givenFlag{f.Value, f.Name, o.given} })
}

func parseText(s string) (string, error) { return s, nil }

// givenFlag notes the values that the command line has for a flag.
type givenFlag struct {
	pflag.Value
	name  string
	given *config.Layer
}

// Set sets the flag and notes the value.
func (f givenFlag) Set(s string) error {
	err := f.Value.Set(s)
	if err != nil {
		return err
	}
	origin := config.Origin{Source: "--" + f.name}
	key := keyOf(f.name)
	at := slices.IndexFunc(*f.given, func(s config.Setting) bool { return s.Key == key })
	if at < 0 {
		at = len(*f.given)
		*f.given = append(*f.given, config.Setting{Origin: origin, Key: key})
	}
	setting := &(*f.given)[at]
	if !repeats(f.Value) {
		setting.Values = nil // the last one wins
	}
	setting.Values = append(setting.Values, config.Value{Origin: origin, Text: s})
	return nil
}

// repeats reports whether a flag has several values.
func repeats(v pflag.Value) bool {
	if given, is := v.(givenFlag); is {
		v = given.Value
	}
	_, is := v.(interface{ repeats() })
	return is
}

func keyOf(flag string) string {
	if flag == flagOutput {
		return keyOutputs
	}
	return flag
}

func flagOf(key string) string {
	if key == keyOutputs {
		return flagOutput
	}
	return key
}

// keysOf returns the keys of a configuration: one for each flag but those that are about the command line.
func keysOf(flags *pflag.FlagSet) (keys []config.Key) {
	flags.VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Name == "help" || f.Name == flagConfig:
		case f.Name == flagOutput:
			members := []string{keyTarget}
			for _, o := range outputOptionTable {
				members = append(members, o.name)
			}
			keys = append(keys, config.Key{Name: keyOutputs, Kind: config.Items, Members: members})
		case repeats(f.Value):
			keys = append(keys, config.Key{Name: f.Name, Kind: config.List})
		default:
			keys = append(keys, config.Key{Name: f.Name})
		}
	})
	return keys
}

// configured is what a command line and its configuration ask for.
type configured struct {
	options  *traceOptions
	flags    *pflag.FlagSet
	settings config.Layer
	keys     []config.Key
}

// configure reads the configuration that o selects, if any, and joins it with the command line. o stays as it is,
// so that it can be called again. The errors name the place of each mistake. check must follow.
func (o *configOptions) configure() (*configured, error) {
	c := &configured{options: new(traceOptions), flags: pflag.NewFlagSet("", pflag.ContinueOnError)}
	addTraceFlags(c.flags, c.options)
	c.options.path = o.path
	c.keys = keysOf(c.flags)
	layers, err := o.layers(c.keys)
	c.settings = config.Merge(layers...)
	if err = errors.Join(err, c.apply()); err != nil {
		return nil, usageError{inOrder(err, o.path)}
	}
	return c, nil
}

// layers are the layers of the configuration, the lowest first. With an error they lack what is wrong.
func (o *configOptions) layers(keys []config.Key) (layers []config.Layer, err error) {
	// These are given, and not in a file: they select it.
	given := slices.DeleteFunc(slices.Clone(*o.given), func(s config.Setting) bool { return s.Key == flagConfig })
	if o.path == "" && o.profile == "" {
		return []config.Layer{given}, nil
	}
	var filesErr error
	if o.path != "" {
		layers, filesErr = config.Files(o.path, keys)
	}
	environment, err := config.Environment(os.Environ(), keys)
	err = errors.Join(filesErr, err)
	layers = append(layers, environment, given)
	profile, is := config.Merge(layers...).Get(flagProfile)
	if !is || len(profile.Values) == 0 {
		return layers, err
	}
	lowest, profileErr := config.Profile(profile.Values[0].Origin, profile.Values[0].Text, keys)
	return slices.Insert(layers, 0, lowest), errors.Join(err, profileErr)
}

// apply sets the flags. The error joins all mistakes.
func (c *configured) apply() error {
	var errs []error
	for _, s := range c.settings {
		flag := c.flags.Lookup(flagOf(s.Key))
		for _, v := range s.Values {
			err := c.set(flag, v)
			if wrong := (*config.Error)(nil); err != nil && !errors.As(err, &wrong) {
				err = &config.Error{Origin: v.Origin, Problem: fmt.Errorf("%s: %w", s.Key, err)}
			}
			errs = append(errs, err)
		}
		flag.Changed = len(s.Values) > 0
	}
	return errors.Join(errs...)
}

func (c *configured) set(flag *pflag.Flag, v config.Value) error {
	switch {
	case v.Members != nil:
		out, err := outputOf(v)
		if err == nil {
			c.options.outputs = append(c.options.outputs, out)
		}
		return err
	case flag.Value.Type() == "bool":
		if _, err := parseSwitch(v.Text); err != nil {
			return err
		}
	}
	return flag.Value.Set(v.Text)
}

// outputOf makes an output of a mapping.
func outputOf(v config.Value) (*outputValue, error) {
	at := slices.IndexFunc(v.Members, func(m config.Member) bool { return m.Name == keyTarget })
	if at < 0 || len(v.Members[at].Values) != 1 {
		return nil, &config.Error{Origin: v.Origin, Problem: fmt.Errorf("%s: the output has no %s: write one, such as '%s: /var/log/tcpshift/tcp.ndjson'", keyOutputs, keyTarget, keyTarget)}
	}
	target := v.Members[at].Values[0]
	out, err := newOutputValue(target.Text)
	if err != nil {
		return nil, &config.Error{Origin: target.Origin, Problem: fmt.Errorf("%s: %w", keyOutputs, err)}
	}
	var errs []error
	for _, m := range v.Members {
		if m.Name == keyTarget || len(m.Values) == 0 { // an empty list stands for the default
			continue
		}
		texts := make([]string, len(m.Values))
		for i, value := range m.Values {
			texts[i] = value.Text
		}
		if err := out.set(m.Name, strings.Join(texts, ",")); err != nil {
			errs = append(errs, &config.Error{Origin: m.Values[0].Origin, Problem: fmt.Errorf("%s: %w", keyOutputs, err)})
		}
	}
	if err := out.check(); err != nil {
		errs = append(errs, &config.Error{Origin: v.Origin, Problem: fmt.Errorf("%s: %w", keyOutputs, err)})
	}
	return out, errors.Join(errs...)
}

// flagPattern matches what an error about a flag begins with.
var flagPattern = regexp.MustCompile(`^--([a-z-]+): `)

// check rejects settings that contradict each other. If the first of them stands in a file, the error names the
// place.
func (c *configured) check() error {
	err := c.options.check()
	if err == nil {
		return nil
	}
	found := flagPattern.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	s, is := c.settings.Get(keyOf(found[1]))
	if !is || s.Origin.Line == 0 {
		return err
	}
	problem := errors.New(s.Key + ": " + strings.TrimPrefix(err.Error(), found[0]))
	return usageError{&config.Error{Origin: s.Origin, Problem: problem}}
}

// isConfigured reports whether there is a configuration besides the command line.
func (o *configOptions) isConfigured() bool { return cmp.Or(o.path, o.profile) != "" }
