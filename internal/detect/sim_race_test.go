//go:build race

package detect

// defaultSimulations is small with the race detector, which makes them eight times as slow and
// has nothing to find in one goroutine. The tests that count allocations run without it.
const defaultSimulations = 100

// floodDivisor is larger with the race detector, for the same reason: the floods are still much larger
// than the tables.
const floodDivisor = 10
