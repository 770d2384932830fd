package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

func stall(of simStarved, from, until float64) simStall {
	return simStall{of: of, from: seconds(from), until: seconds(until)}
}

// hasty is a storm that leaves no time: its first connect() fails within a second or two.
func hasty(port uint16, by int, from, until, perSecond float64) simLoad {
	return client(port, by, from, until, perSecond, func(l *simLoad) { l.lasting = 400 * time.Millisecond })
}

// starvedScenarios are what random simulations have found in which something gets no CPU for a while, each as small as
// it gets.
var starvedScenarios = []simScenario{
	{
		name:  "failures that an alert has reported need no second one when the reader starves after it",
		ports: 312, end: 40, lag: simStep,
		loads:  []simLoad{hasty(80, 2, 5.4, 11, 360)},
		stalls: []simStall{stall(starvedLoop, 5.1, 6.1), stall(starvedReader, 17, 28.8)},
		kills:  []simKill{{to: &simDestination{key: to(80)}, from: seconds(21.1), until: seconds(21.1), share: 0.8}},
	},
	{
		name:  "failures that came with the end of a stall are over when the kernel has killed the sockets",
		ports: 216, end: 70, before: 12 * time.Millisecond, after: 16 * time.Millisecond, restarts: []float64{30},
		loads: []simLoad{
			hasty(80, 3, 12, 19, 280),
			client(80, 3, 19, 60, 2.4, func(l *simLoad) { l.bursts, l.chance = 3, true }),
		},
		stalls: []simStall{stall(starvedReader, 21.8, 25.5), stall(starvedReader, 33, 44.6)},
		kills:  []simKill{{to: &simDestination{key: to(80)}, from: seconds(45.5), until: seconds(65), every: 2600 * time.Millisecond, share: 0.3}},
	},
	{
		name:  "the loop starves before it is decided which alert reports a failure",
		ports: 90, end: 40, before: 900 * time.Millisecond, after: 600 * time.Millisecond, lag: simStep, hides: []int{1},
		loads: []simLoad{
			client(80, 1, 2, 3, 90, func(l *simLoad) { l.lasting = 60 * time.Second }),
			client(80, 0, 5, 8, 3, nil),
		},
		stalls: []simStall{stall(starvedLoop, 5.5, 8.5)},
	},
	{
		name:  "failures reach the engine when they are over",
		ports: 142, end: 60, before: 20 * time.Millisecond, after: 20 * time.Millisecond,
		loads:  []simLoad{client(80, 0, 5, 5.4, 500, func(l *simLoad) { l.ends, l.lasting = peerFirst, 700*time.Millisecond })},
		stalls: []simStall{stall(starvedReader, 5, 17.8)},
	},
	{
		name:  "resets and refused connects of many seconds reach the engine at once",
		ports: 300, end: 60, before: 20 * time.Millisecond, after: 20 * time.Millisecond,
		loads: []simLoad{
			client(80, 0, 3, 50, 7.5, func(l *simLoad) { l.ends = resetByPeer }),
			client(81, 1, 3, 50, 3.6, func(l *simLoad) { l.ends = refusedConnects }),
		},
		stalls: []simStall{stall(starvedReader, 20, 33)},
	},
	{
		name:  "a load that catches up is no regular storm",
		ports: 142, end: 60, before: 14 * time.Millisecond, after: 7 * time.Millisecond,
		loads:  []simLoad{client(81, 1, 10, 60, 6.34, func(l *simLoad) { l.lasting = 100 * time.Millisecond })},
		stalls: []simStall{stall(starvedLoads, 12.1, 20.1)},
	},
	{
		name:  "a storm goes on while its transitions do not come",
		ports: 105, end: 60, before: 1600 * time.Millisecond, after: 400 * time.Millisecond,
		limits: func(l *tcp.Limits) { l.Reuse = 0 },
		loads:  []simLoad{client(81, 2, 4, 60, 3.78, func(l *simLoad) { l.lasting = 1700 * time.Millisecond })},
		stalls: []simStall{stall(starvedReader, 20.1, 30.8)},
	},
	{
		name:  "connections wait in a queue while no table can be read",
		ports: 100, end: 130, before: 50 * time.Millisecond, after: 10 * time.Millisecond,
		listens: []simArrivals{{
			port: 81, backlog: 64, by: &simProcess{owner: process(firstPID+2, "")}, from: seconds(30), until: seconds(130),
			perSecond: 1.3, bursts: 1, accepts: 1e4, stuckFrom: seconds(46), stuckUntil: seconds(130),
		}},
		stalls: []simStall{stall(starvedWorker, 57, 69.5)},
	},
}

// No alert is false, missed or wrong in a scenario in which something starves.
func TestSimulation_StarvedScenarios(t *testing.T) { runScenarios(t, starvedScenarios) }
