// Package bpfobj contains the compiled BPF programs, and the Go types of what they share
// with user space. bpf2go generates both from bpf/; they are committed, so that building
// needs only Go. Only this file is written by hand. The package must not load or
// interpret anything.
package bpfobj

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -output-suffix _bpf -no-global-types -type transition_event -type end_event -type cgroup_event -type socket_event -type reset_event -type update_event -type socket_group -type program_counters -type prefix_key -type member_key -type port_set -type event_kind -type event_flag -type socket_role -type pid_source -type side -type member_kind -type program_rank -type listen_port_result Probe ../../bpf/tcpshift.bpf.c -- -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu -Wall -Wextra -Werror
