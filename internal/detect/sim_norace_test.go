//go:build !race

package detect

// defaultSimulations is how many simulations a plain `go test` runs.
const defaultSimulations = 500

// floodDivisor divides the floods of tests that only need to be much larger than a table.
const floodDivisor = 1
