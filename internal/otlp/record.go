package otlp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
)

// errNotRecord is the error of a line that is not a record of the otel schema.
var errNotRecord = errors.New("the line is not a record of the otel schema")

// emit makes the batch from lines. It returns how many of them are no records.
func (e *Exporter) emit(ctx context.Context, lines []byte) (bad int) {
	clear(e.batch.records) // their attributes may go
	e.batch.records = e.batch.records[:0]
	for line := range bytes.Lines(lines) {
		r, err := parse(line)
		if err != nil {
			bad++
			continue
		}
		e.logger.Emit(ctx, r)
	}
	return bad
}

// parse turns a line into a record.
func parse(line []byte) (r log.Record, err error) {
	var members struct {
		Timestamp      string          `json:"timestamp"`
		SeverityNumber int             `json:"severity_number"`
		SeverityText   string          `json:"severity_text"`
		EventName      string          `json:"event_name"`
		Body           string          `json:"body"`
		Attributes     json.RawMessage `json:"attributes"`
	}
	if err := json.Unmarshal(line, &members); err != nil {
		return r, errNotRecord
	}
	at, err := time.Parse(time.RFC3339Nano, members.Timestamp)
	if err != nil {
		return r, errNotRecord
	}
	r.SetTimestamp(at)
	r.SetSeverity(log.Severity(members.SeverityNumber))
	r.SetSeverityText(members.SeverityText)
	r.SetEventName(members.EventName)
	if members.Body != "" {
		r.SetBody(attribute.StringValue(members.Body))
	}
	attributes, err := object(json.NewDecoder(bytes.NewReader(members.Attributes)))
	if err != nil {
		return r, errNotRecord
	}
	r.AddAttributes(attributes...)
	return r, nil
}

// object reads an object, and keeps the order of its members.
func object(d *json.Decoder) (members []attribute.KeyValue, err error) {
	d.UseNumber()
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return nil, errNotRecord
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := valueOf(d)
		if err != nil {
			return nil, err
		}
		members = append(members, attribute.KeyValue{Key: attribute.Key(key.(string)), Value: value})
	}
	_, err = d.Token()
	return members, err
}

// valueOf reads a value: a string, a number, a truth value, or a list of them.
func valueOf(d *json.Decoder) (v attribute.Value, err error) {
	token, err := d.Token()
	if err != nil {
		return v, err
	}
	switch t := token.(type) {
	case string:
		return attribute.StringValue(t), nil
	case bool:
		return attribute.BoolValue(t), nil
	case json.Number:
		return number(t)
	case json.Delim:
		if t != '[' {
			return v, errNotRecord
		}
		return list(d)
	}
	return v, errNotRecord
}

func list(d *json.Decoder) (v attribute.Value, err error) {
	var all []attribute.Value
	for d.More() {
		each, err := valueOf(d)
		if err != nil {
			return v, err
		}
		all = append(all, each)
	}
	if _, err := d.Token(); err != nil {
		return v, err
	}
	return attribute.SliceValue(all...), nil
}

// number keeps integers exact: OTLP has 64 bits with a sign. A larger one stays a string.
func number(n json.Number) (v attribute.Value, err error) {
	if strings.ContainsAny(n.String(), ".eE") {
		f, err := n.Float64()
		return attribute.Float64Value(f), err
	}
	if i, err := n.Int64(); err == nil {
		return attribute.Int64Value(i), nil
	}
	return attribute.StringValue(n.String()), nil
}
