package injector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Flags are the control bits of a segment, RFC 9293 section 3.1.
type Flags uint8

// The control bits.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// String lists the bits, such as SYN|ACK.
func (f Flags) String() string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if f>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Segment is one TCP segment without its IP header.
type Segment struct {
	From, To uint16 // ports
	Seq, Ack uint32
	Flags    Flags
	Window   uint16 // not scaled
	Options  []byte // a multiple of four bytes
	Data     string
}

// sizeofHeader is the length of a TCP header without options.
const sizeofHeader = 20

// End is the sequence number after the segment: data, SYN and FIN count.
func (s *Segment) End() uint32 {
	end := s.Seq + uint32(len(s.Data))
	if s.Flags&SYN != 0 {
		end++
	}
	if s.Flags&FIN != 0 {
		end++
	}
	return end
}

// String shows the segment as a line of a failure message.
func (s *Segment) String() string {
	return fmt.Sprintf("%d > %d %v seq %d ack %d, %d bytes", s.From, s.To, s.Flags, s.Seq, s.Ack, len(s.Data))
}

// marshal encodes the segment with the checksum for these addresses.
func (s *Segment) marshal(from, to netip.Addr) []byte {
	b := make([]byte, 0, sizeofHeader+len(s.Options)+len(s.Data))
	b = binary.BigEndian.AppendUint16(b, s.From)
	b = binary.BigEndian.AppendUint16(b, s.To)
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	b = append(b, byte((sizeofHeader+len(s.Options))/4<<4), byte(s.Flags))
	b = binary.BigEndian.AppendUint16(b, s.Window)
	b = append(b, 0, 0, 0, 0) // checksum, urgent pointer
	b = append(append(b, s.Options...), s.Data...)
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(b)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, unix.IPPROTO_TCP)
	binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	return b
}

// checksum is the Internet checksum of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// parse decodes a segment. It does not verify the checksum, which loopback leaves out.
func parse(b []byte) (Segment, error) {
	if len(b) < sizeofHeader {
		return Segment{}, fmt.Errorf("parse a segment of %d bytes: too short for its header", len(b))
	}
	offset := int(b[12]>>4) * 4
	if offset < sizeofHeader || offset > len(b) {
		return Segment{}, fmt.Errorf("parse a segment of %d bytes: its data begins at %d", len(b), offset)
	}
	return Segment{
		From: binary.BigEndian.Uint16(b), To: binary.BigEndian.Uint16(b[2:]),
		Seq: binary.BigEndian.Uint32(b[4:]), Ack: binary.BigEndian.Uint32(b[8:]),
		Flags: Flags(b[13]), Window: binary.BigEndian.Uint16(b[14:]),
		Options: b[sizeofHeader:offset], Data: string(b[offset:]),
	}, nil
}

// skipIPv4 removes the header that a raw socket of IPv4 delivers.
func skipIPv4(b []byte) ([]byte, error) {
	if len(b) == 0 || int(b[0]&15)*4 > len(b) {
		return nil, errors.New("skip the IPv4 header: the packet is too short")
	}
	return b[int(b[0]&15)*4:], nil
}
