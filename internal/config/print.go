package config

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Format writes settings as a document that [Parse] reads, with the origin of each above it.
func Format(settings Layer, keys []Key) ([]byte, error) {
	top := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range settings {
		at := slices.IndexFunc(keys, func(k Key) bool { return k.Name == s.Key })
		name := scalar(s.Key)
		name.HeadComment = "from " + s.Origin.String()
		top.Content = append(top.Content, name, valuesNode(keys[at].Kind, s.Values))
	}
	if len(top.Content) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{top}}); err != nil {
		return nil, err
	}
	err := e.Close()
	return b.Bytes(), err
}

// valuesNode is the node of a key's values.
func valuesNode(kind Kind, values []Value) *yaml.Node {
	switch {
	case len(values) == 0:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	case kind == Single && len(values) == 1:
		return scalar(values[0].Text)
	}
	n := &yaml.Node{Kind: yaml.SequenceNode}
	if kind != Items {
		n.Style = yaml.FlowStyle
	}
	for _, v := range values {
		if v.Members == nil {
			n.Content = append(n.Content, scalar(v.Text))
		} else {
			n.Content = append(n.Content, itemNode(v.Members))
		}
	}
	return n
}

func itemNode(members []Member) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, m := range members {
		kind := List
		if len(m.Values) == 1 {
			kind = Single
		}
		n.Content = append(n.Content, scalar(m.Name), valuesNode(kind, m.Values))
	}
	return n
}

// scalar is the node of a text. A text that would be read as no value is quoted.
func scalar(text string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	switch strings.ToLower(text) {
	case "", "~", "null":
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
