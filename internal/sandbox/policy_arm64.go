package sandbox

// alwaysHere is empty: arm64 has no older variants of the system calls in always.
var alwaysHere []string
