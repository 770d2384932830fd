package detect

import "strconv"

// counted returns a number and the words for it: one if n is 1, else many.
func counted(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatUint(n, 10) + " " + many
}

// choose returns one if n is 1, else many, for words that do not follow their number.
func choose(n uint64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func connectsFailed(n uint64) string {
	return counted(n, "connect has failed already", "connects have failed already")
}
