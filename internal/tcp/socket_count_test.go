package tcp

import "testing"

// Each key takes its own value and no other.
func TestGroupOf_Names(t *testing.T) {
	all := &Cgroup{
		Unit: "web.service", Container: "c0ffee", Pod: "web-0", Namespace: "shop", ContainerName: "nginx",
		ContainerClaimed: true, UnitClaimed: true,
	}
	comm := Comm{'c', 'u', 'r', 'l'}
	owner := Owner{PID: 7, Comm: comm, Source: PIDScan}
	for _, tt := range []struct {
		name   string
		key    SocketKey
		state  State
		owner  Owner
		cgroup *Cgroup
		want   SocketGroup
	}{
		{"a container", KeyContainer, Established, owner, all, SocketGroup{Container: "c0ffee", ContainerClaimed: true}},
		{"a pod without a container", KeyContainer, Established, owner, &Cgroup{PodUID: "x", ContainerClaimed: true}, SocketGroup{}},
		{"a pod", KeyPod, Established, owner, all, SocketGroup{Pod: "web-0"}},
		{"a namespace", KeyNamespace, Established, owner, all, SocketGroup{Namespace: "shop"}},
		{"a container's name", KeyContainerName, Established, owner, all, SocketGroup{ContainerName: "nginx"}},
		{"a unit", KeyUnit, Established, owner, all, SocketGroup{Unit: "web.service", UnitClaimed: true}},
		{"a service", KeyService, Established, owner, all, SocketGroup{Service: "web", ServiceClaimed: true}},
		{"the service of a unit of root's", KeyService, Established, owner, &Cgroup{Unit: "web.service"}, SocketGroup{Service: "web"}},
		{"the service of a process", KeyService, Established, owner, &Cgroup{}, SocketGroup{Service: "curl"}},
		{"no cgroup", KeyService, Established, owner, nil, SocketGroup{Service: "curl"}},
		{"an orphan", KeyService, FinWait2, Owner{Comm: comm}, &Cgroup{Unit: "web.service"}, SocketGroup{Service: "web"}},
		{"an orphan in no unit", KeyService, FinWait2, Owner{Comm: comm}, nil, SocketGroup{}},
		{"the service of a TIME_WAIT", KeyService, TimeWait, owner, all, SocketGroup{}},
		{"the unit of a TIME_WAIT", KeyUnit, TimeWait, owner, all, SocketGroup{}},
		{"a unit without a cgroup", KeyUnit, Established, owner, nil, SocketGroup{}},
	} {
		s := &Socket{}
		s.New, s.Owner, s.Cgroup = tt.state, tt.owner, tt.cgroup
		if got := GroupOf(s, []SocketKey{tt.key}); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// A unit of root's and a claimed one of the same name are two groups.
func TestGroupOf_Imitation(t *testing.T) {
	var groups [2]SocketGroup
	for i := range groups {
		s := &Socket{}
		s.New, s.Cgroup = Established, &Cgroup{Unit: "web.service", UnitClaimed: i == 1}
		groups[i] = GroupOf(s, []SocketKey{KeyUnit, KeyService})
	}
	if groups[0] == groups[1] {
		t.Errorf("both are in %+v", groups[0])
	}
}
