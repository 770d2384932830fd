package main

import (
	"fmt"
	"regexp"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or print a configuration",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			return usagef("config needs a command: use 'config check' or 'config print'")
		},
	}
	cmd.AddCommand(
		newConfigCommand("check", "Check a configuration, and print what is wrong with each value",
			func(cmd *cobra.Command, c *configured, o *configOptions) error {
				if err := c.checkFiles(); err != nil {
					return usageError{inOrder(err, o.path)}
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), o.source()+": correct")
				return err
			}),
		newConfigCommand("print", "Print the settings of a configuration that are in effect, and where each comes from", printConfig))
	return cmd
}

// newConfigCommand makes a command that reads a configuration as trace does, with the same flags.
func newConfigCommand(name, short string, run func(*cobra.Command, *configured, *configOptions) error) *cobra.Command {
	var opts traceOptions
	cmd := &cobra.Command{
		Use:   name + " [flags]",
		Short: short,
		Long:  short + ".\nThe flags are those of trace.",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !opts.isConfigured() {
				return usagef("config %s: no configuration is named: use --config PATH or --profile NAME", name)
			}
			c, err := opts.configure()
			if err == nil {
				err = c.check()
			}
			if err != nil {
				return err
			}
			return run(cmd, c, &opts.configOptions)
		},
		DisableFlagsInUseLine: true,
	}
	addTraceFlags(cmd.Flags(), &opts)
	return cmd
}

// source is the name of the configuration, for messages.
func (o *configOptions) source() string {
	if o.path != "" {
		return o.path
	}
	return "profile " + o.profile
}

// defaultPattern finds a default that is part of a flag's help text.
var defaultPattern = regexp.MustCompile(`\(default ([^)]+)\)$`)

// printConfig prints the settings as a configuration file, and the defaults of the other keys as comments.
func printConfig(cmd *cobra.Command, c *configured, _ *configOptions) error {
	text, err := config.Format(c.settings, c.keys)
	if err != nil {
		return err
	}
	text = append(text, "\n# defaults\n"...)
	for _, k := range c.keys {
		if _, is := c.settings.Get(k.Name); is {
			continue
		}
		if value := defaultOf(c.flags.Lookup(flagOf(k.Name))); value != "" {
			text = fmt.Appendf(text, "# %s: %s\n", k.Name, value)
		}
	}
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

// defaultOf is the default of a flag, as its help text shows it; "": none.
func defaultOf(f *pflag.Flag) string {
	if found := defaultPattern.FindStringSubmatch(f.Usage); found != nil {
		return found[1]
	}
	return f.DefValue
}
