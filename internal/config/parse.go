package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/tcpshift/tcpshift/internal/spelling"
)

// Parse reads a YAML document: a mapping of keys. A key has one value or a list of them, as its kind says; an
// empty list, or no value at all, stands for the default. What YAML has besides (anchors, tags, several
// documents) is refused. The error joins all mistakes, each an [*Error]. source names the document.
func Parse(source string, text []byte, keys []Key) (Layer, error) {
	p := parser{source: source, keys: keys}
	document, err := p.decode(text)
	if err != nil || document == nil {
		return nil, err
	}
	p.mapping(document)
	return p.layer, p.mistakes.join()
}

type parser struct {
	source   string
	keys     []Key
	layer    Layer
	mistakes mistakes
}

func (p *parser) at(n *yaml.Node) Origin { return Origin{p.source, n.Line, n.Column} }

// decode returns the top of the document; nil: it is empty.
func (p *parser) decode(text []byte) (*yaml.Node, error) {
	var document, next yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	err := d.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil {
		err = d.Decode(&next)
		if err == nil {
			return nil, &Error{p.at(&next), errors.New("a second document begins here: use one")}
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, p.syntaxError(err)
	}
	if len(document.Content) != 1 {
		return nil, nil
	}
	top := document.Content[0]
	switch {
	case isNull(top):
		return nil, nil
	case top.Kind != yaml.MappingNode:
		return nil, &Error{p.at(top), errors.New("the file is no mapping: write KEY: VALUE")}
	}
	return top, nil
}

// syntaxError adds the place to an error of the library.
func (p *parser) syntaxError(err error) error {
	var bad *yaml.LoadError
	if !errors.As(err, &bad) {
		return &Error{Origin{Source: p.source}, err}
	}
	problem := bad.Message
	if bad.ContextMsg != "" {
		problem = bad.ContextMsg + ": " + problem
	}
	return &Error{Origin{p.source, bad.Mark.Line, bad.Mark.Column}, errors.New(problem)}
}

func (p *parser) mapping(top *yaml.Node) {
	for i := 0; i+1 < len(top.Content); i += 2 {
		name, value := top.Content[i], top.Content[i+1]
		at := slices.IndexFunc(p.keys, func(k Key) bool { return k.Name == name.Value })
		if at < 0 || name.Kind != yaml.ScalarNode {
			p.mistakes.add(p.at(name), "%s", unknown(name.Value, "a key", names(p.keys)))
			continue
		}
		if before, is := p.layer.Get(name.Value); is {
			p.mistakes.add(p.at(name), "%s: is there twice: it is also in line %d", name.Value, before.Origin.Line)
			continue
		}
		p.layer = append(p.layer, Setting{p.at(name), name.Value, p.values(&p.keys[at], value)})
	}
}

// values returns the values of a key.
func (p *parser) values(k *Key, n *yaml.Node) []Value {
	switch {
	case isNull(n):
		return nil
	case k.Kind == Single:
		return p.scalars(k.Name, []*yaml.Node{n})
	case n.Kind != yaml.SequenceNode:
		return p.itemsOrScalars(k, []*yaml.Node{n})
	}
	return p.itemsOrScalars(k, n.Content)
}

func (p *parser) itemsOrScalars(k *Key, nodes []*yaml.Node) (values []Value) {
	if k.Kind != Items {
		return p.scalars(k.Name, nodes)
	}
	for _, n := range nodes {
		if n.Kind == yaml.MappingNode {
			values = append(values, p.item(k, n))
		} else {
			values = append(values, p.scalars(k.Name, []*yaml.Node{n})...)
		}
	}
	return values
}

// item reads a mapping that is one value of a key.
func (p *parser) item(k *Key, n *yaml.Node) Value {
	v := Value{Origin: p.at(n), Members: []Member{}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		is := func(m Member) bool { return m.Name == name.Value }
		switch {
		case name.Kind != yaml.ScalarNode || !slices.Contains(k.Members, name.Value):
			p.mistakes.add(p.at(name), "%s: %s", k.Name, unknown(name.Value, "one of its keys", k.Members))
		case slices.ContainsFunc(v.Members, is):
			p.mistakes.add(p.at(name), "%s: %s: is there twice: write it once", k.Name, name.Value)
		case isNull(value): // the default
		case value.Kind == yaml.SequenceNode:
			v.Members = append(v.Members, Member{p.at(name), name.Value, p.scalars(name.Value, value.Content)})
		default:
			v.Members = append(v.Members, Member{p.at(name), name.Value, p.scalars(name.Value, []*yaml.Node{value})})
		}
	}
	return v
}

// scalars returns texts. key is for messages.
func (p *parser) scalars(key string, nodes []*yaml.Node) (values []Value) {
	for _, n := range nodes {
		switch {
		case n.Kind == yaml.AliasNode || n.Anchor != "":
			p.mistakes.add(p.at(n), "%s: anchors and aliases are not supported: write the value", key)
		case n.Kind == yaml.SequenceNode:
			p.mistakes.add(p.at(n), "%s: has one value here, not a list", key)
		case n.Kind != yaml.ScalarNode:
			p.mistakes.add(p.at(n), "%s: is not a mapping: write a value", key)
		case n.Style&yaml.TaggedStyle != 0:
			p.mistakes.add(p.at(n), "%s: tags such as %s are not supported: write the value", key, n.Tag)
		case isNull(n):
			p.mistakes.add(p.at(n), "%s: an empty value in a list: leave it out", key)
		default:
			values = append(values, Value{Origin: p.at(n), Text: n.Value})
		}
	}
	return values
}

// isNull reports whether a key has no value: nothing stands behind it, or null.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// unknown explains a name that is not among names. what is what it should be.
func unknown(name, what string, names []string) string {
	problem := strconv.Quote(name) + " is not " + what
	if near := spelling.Nearest(name, names); near != "" {
		return fmt.Sprintf("%s: did you mean %s?", problem, near)
	}
	return problem + ": " + hint
}

const hint = "docs/configuration.md lists them; 'tcpshift help trace' explains the flags that they are named for"
