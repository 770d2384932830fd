//go:build !race

package detect

// defaultSimulations is how many simulations a plain `go test` runs.
const defaultSimulations = 500
