package record

import (
	"bytes"
	"testing"
)

// Every record of every schema names its host and boot once.
func TestOrigin_OnEveryRecord(t *testing.T) {
	for schema, keys := range map[Schema][2]string{
		SchemaNative: {`"host":`, `"boot_id":`},
		SchemaECS:    {`"host.name":`, `"host.boot.id":`},
		SchemaOTel:   {`"host.name":`, `"tcpshift.boot_id":`},
	} {
		for recordType, cases := range goldenFiles {
			for _, c := range cases {
				encoder := NewEncoder(schema, nil)
				plain := c.line(encoder, nil, 7)
				encoder.(OriginEncoder).AddOrigin("web-1", "2e8ec3c7-6990-4be5-ad35-620e3c14e752")
				line := c.line(encoder, nil, 7)
				for _, key := range keys {
					if recordType == "start" && !bytes.Contains(plain, []byte(key)) {
						continue // a start record reports that it is not known
					}
					if count := bytes.Count(line, []byte(key)); count != 1 {
						t.Errorf("%s, %s, %s: %d times %s in %s", schema, recordType, c.name, count, key, line)
					}
				}
				if recordType != "start" && bytes.Contains(plain, []byte(keys[0])) {
					t.Errorf("%s, %s: a host without AddOrigin: %s", schema, c.name, plain)
				}
				decodeJSON(t, line)
			}
		}
	}
}
