package tcplab

// Scenario is one course of a connection.
type Scenario struct {
	Name string
	Run  func(*Netns, Family) Outcome
}

// Scenarios is all scenarios.
var Scenarios = []Scenario{
	{"client closes", ClientCloses},
	{"server closes", ServerCloses},
	{"simultaneous close", SimultaneousClose},
	{"half close", HalfClose},
	{"close in FIN_WAIT1", CloseInFinWait1},
	{"close in FIN_WAIT2", CloseInFinWait2},
	{"orphan in FIN_WAIT2", OrphanInFinWait2},
	{"linger2 negative", Linger2Negative},
	{"time wait overflow", TimeWaitOverflow},
	{"reset by linger 0", ResetByLinger0},
	{"reset received", ResetReceived},
	{"reset in CLOSE_WAIT", ResetInCloseWait},
	{"disconnect", Disconnect},
	{"unread data at close", UnreadDataClose},
	{"unaccepted child", UnacceptedChild},
	{"established timeout", EstablishedTimeout},
	{"refused", Refused},
	{"no route", NoRoute},
	{"no port", NoPort},
	{"connect timeout", ConnectTimeout},
	{"self connect", SelfConnect},
	{"simultaneous open", SimultaneousOpen},
	{"fast open", FastOpen},
	{"fast open abandoned", FastOpenAbandoned},
	{"defer accept", DeferAccept},
}
