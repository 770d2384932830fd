package record

import "time"

// Reload reports that the configuration has changed from here on in the stream.
type Reload struct {
	Time    time.Time
	Changed string // the keys that have other values, with commas between
}

// maxChanged bounds the names of the keys, in bytes: some 30 of them.
const maxChanged = 400

const (
	ecsReload  = ecsAbout + `"event","event.dataset":"tcpshift.reload","event.category":["configuration"],"event.type":["change"],"event.action":"configuration_reloaded"`
	otelReload = otelInfo + `reload"`
)

// Reload implements [Encoder].
func (n *Native) Reload(dst []byte, r *Reload) []byte {
	return n.end(n.begin(dst, "reload", r.Time).string("changed", clip(r.Changed, maxChanged)))
}

// Reload implements [Encoder].
func (e *ECS) Reload(dst []byte, r *Reload) []byte {
	return e.end(e.begin(dst, r.Time, ecsReload).string("tcpshift.changed", clip(r.Changed, maxChanged)))
}

// Reload implements [Encoder].
func (e *OTel) Reload(dst []byte, r *Reload) []byte {
	return e.end(e.begin(dst, r.Time, otelReload).string("tcpshift.changed", clip(r.Changed, maxChanged)), len(dst))
}

// Reload implements [Encoder].
func (f *fieldsEncoder) Reload(dst []byte, r *Reload) []byte {
	return f.cut(f.SocketEncoder.Reload(dst, r), len(dst))
}

// Reload implements [Encoder].
func (t Text) Reload(dst []byte, r *Reload) []byte {
	begin := len(dst)
	dst = append(appendClock(append(dst, "# "...), r.Time), " reload: "...)
	dst = append(appendPrintable(dst, []byte(r.Changed)), '\n')
	return t.finishRemark(dst, begin, sgrDim)
}
