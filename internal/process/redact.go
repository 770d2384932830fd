package process

import (
	"path"
	"regexp"
	"strings"
)

// redacted stands for what may be a secret.
const redacted = "[redacted]"

// secretName matches a name whose value is a secret, such as DB_PASSWORD, api-key or Authorization.
const secretName = `(?:[\w.-]*(?:passw|passphrase|passcode|pwd|secret|token|credential|api[_-]?key|access[_-]?key|` +
	`private[_-]?key|auth|bearer|cookie|signature|session)[\w.-]*|(?:[\w.-]*[_.-])?(?:pass|pw)(?:[_.-][\w.-]*)?)`

var (
	// secretOption is an option whose value is the next argument.
	secretOption = regexp.MustCompile(`(?i)^--?` + secretName + `$`)
	// secretValue is a secret within an argument. What follows it may be part of it, up to the end.
	secretValue = regexp.MustCompile(`(?is)((?:^|[^\w.-])(?:` +
		secretName + `["']?\s*(?:=|:)\s*|` + // password=x, "token": "x", Authorization: Bearer x
		`--?` + secretName + `["']?\s+|` + // --password x, in the text of a shell
		`(?:bearer|basic)\s+))\S.*`)
	// userInfo and userToken are what comes before the host of a URL.
	userInfo  = regexp.MustCompile(`://[^/@:\s]*:\S*@`)
	userToken = regexp.MustCompile(`://[^/@\s]+@`)
	// wellKnown are keys that show by their form what they are: of AWS, GitHub, GitLab, Slack, OpenAI,
	// and JSON Web Tokens.
	wellKnown = regexp.MustCompile(`\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|` +
		`xox[a-z]-[\w-]{10,}|sk-[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]+[\w.-]*)`)
	// userOption is curl's, wget's and others' option for USER:PASSWORD.
	userOption = regexp.MustCompile(`^(?:-[uU]|--user|--proxy-user)$`)
	joinedUser = regexp.MustCompile(`^(-[uU]|--user=|--proxy-user=)[^:]*:.+`)
)

// redact returns arguments in which what may be a secret, and what the operator's patterns match, is replaced. It hides
// too much rather than too little, but knows only what has a name or a form: see docs/output.md.
//
// All of it looks at the arguments as they are: what one rule has replaced could hide a secret from another one.
func redact(args []string, patterns []*regexp.Regexp) []string {
	parts := make([][]span, len(args))
	program := ""
	if len(args) > 0 {
		program = path.Base(args[0])
	}
	for i, arg := range args {
		before := ""
		if i > 1 {
			before = args[i-1]
		}
		parts[i] = secretsIn(arg, before, program)
	}
	addMatches(parts, args, patterns)
	shown := make([]string, 0, len(args))
	for i, arg := range args {
		if len(parts[i]) > 0 {
			arg = replace(arg, parts[i])
		}
		shown = append(shown, arg)
	}
	return shown
}

// secretsIn returns the secrets in an argument. before is the argument before it, if that may be an option, else empty.
func secretsIn(arg, before, program string) (parts []span) {
	switch {
	case arg != "" && secretOption.MatchString(before),
		userOption.MatchString(before) && strings.Contains(arg, ":"),
		program == "sshpass" && before == "-p" && arg != "":
		return []span{{0, len(arg)}}
	case takesPassword(program) && len(arg) > 2 && strings.HasPrefix(arg, "-p"):
		return []span{{len("-p"), len(arg)}}
	}
	for _, known := range []*regexp.Regexp{joinedUser, secretValue} { // the group is not part of the secret
		for _, at := range known.FindAllStringSubmatchIndex(arg, -1) {
			parts = append(parts, span{at[3], at[1]})
		}
	}
	for _, known := range []*regexp.Regexp{userInfo, userToken} {
		for _, at := range known.FindAllStringIndex(arg, -1) {
			parts = append(parts, span{at[0] + len("://"), at[1] - len("@")})
		}
	}
	for _, at := range wellKnown.FindAllStringIndex(arg, -1) {
		parts = append(parts, span{at[0], at[1]})
	}
	return parts
}

// takesPassword reports whether a password may follow the option -p of a program directly, as in -pSECRET.
func takesPassword(program string) bool {
	return program == "sshpass" || strings.HasPrefix(program, "mysql") || strings.HasPrefix(program, "mariadb")
}
