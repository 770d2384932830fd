package sandbox

// alwaysHere are the system calls of amd64 for which other architectures have only a newer one.
var alwaysHere = []string{"poll"}
