package process

import (
	"strings"
	"testing"
)

// Well-known forms of secrets are hidden, whatever surrounds them; the rest stays.
func TestRedact_Secrets(t *testing.T) {
	const secret = "s3cr3t/+x"
	for _, tt := range []struct{ args, want string }{ // arguments are separated by |
		{"app|--password=" + secret, "app --password=[redacted]"},
		{"app|--password|" + secret + "|--port|80", "app --password [redacted] --port 80"},
		{"app|-password|" + secret, "app -password [redacted]"},
		{"app|--db-pass|" + secret, "app --db-pass [redacted]"},
		{"app|--API_KEY|" + secret, "app --API_KEY [redacted]"},
		{"app|--token|" + secret, "app --token [redacted]"},
		{"app|--authtoken=" + secret, "app --authtoken=[redacted]"},
		{"env|DB_PASSWORD=" + secret + "|AWS_SECRET_ACCESS_KEY=" + secret + "|PORT=1", "env DB_PASSWORD=[redacted] AWS_SECRET_ACCESS_KEY=[redacted] PORT=1"},
		{"env|PGPASSWORD=two words " + secret, "env PGPASSWORD=[redacted]"},
		{"curl|-H|Authorization: Bearer " + secret + "|http://h/", "curl -H Authorization: [redacted] http://h/"},
		{"curl|-H|X-Auth-Token:" + secret, "curl -H X-Auth-Token:[redacted]"},
		{"curl|-H|Cookie: a=" + secret, "curl -H Cookie: [redacted]"},
		{"curl|-u|me:" + secret + "|http://h/", "curl -u [redacted] http://h/"},
		{"curl|-ume:" + secret, "curl -u[redacted]"},
		{"curl|--user|me:" + secret, "curl --user [redacted]"},
		{"curl|--proxy-user=me:" + secret, "curl --proxy-user=[redacted]"},
		{"curl|https://me:" + secret + "@h/path", "curl https://[redacted]@h/path"},
		{"git|clone|https://" + "tok3n@h/r.git", "git clone https://[redacted]@h/r.git"},
		{"app|postgres://me:p@ss" + secret + "@db:5432/x", "app postgres://[redacted]@db:5432/x"},
		{"curl|https://h/?a=1&access_token=" + secret + "&b=2", "curl https://h/?a=1&access_token=[redacted]"},
		{"app|Server=h;Password=" + secret + ";Database=x", "app Server=h;Password=[redacted]"},
		{`app|{"user":"me","password": "` + secret + `"}`, `app {"user":"me","password": [redacted]`},
		{"sh|-c|mysql --password " + secret + " db", "sh -c mysql --password [redacted]"},
		{"sh|-c|TOKEN=" + secret + " run", "sh -c TOKEN=[redacted]"},
		{"mysql|-p" + secret + "|db", "mysql -p[redacted] db"},
		{"/usr/bin/mysqldump|-uroot|-p" + secret, "/usr/bin/mysqldump -uroot -p[redacted]"},
		{"sshpass|-p|" + secret + "|ssh|h", "sshpass -p [redacted] ssh h"},
		{"app|--passphrase:" + secret, "app --passphrase:[redacted]"},
		{"app|AKIA" + "ABCDEFGHIJKLMNOP", "app [redacted]"},
		{"app|ghp_" + strings.Repeat("a1", 18), "app [redacted]"},
		{"app|eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.c2ln", "app [redacted]"},
		{"nginx: worker --token=" + secret, "nginx: worker --token=[redacted]"},
		{"app|--secret\n=\n" + secret + "\nmore", "app --secret\n=\n[redacted]"},

		{"nginx|-g|daemon off;", "nginx -g daemon off;"},
		{"postgres: walwriter", "postgres: walwriter"},
		{"java|-Xmx1g|-jar|/srv/app.jar|--port=8080", "java -Xmx1g -jar /srv/app.jar --port=8080"},
		{"ssh|-p|22|me@host", "ssh -p 22 me@host"},
		{"curl|http://h:8080/a/b?c=d", "curl http://h:8080/a/b?c=d"},
		{"app|--bypass=1|--compass", "app --bypass=1 --compass"},
		{"app||x", "app  x"},
		{"", ""},
	} {
		got := strings.Join(redact(strings.Split(tt.args, "|"), nil), " ")
		if got != tt.want || strings.Contains(got, secret) {
			t.Errorf("%q:\ngot  %q\nwant %q", tt.args, got, tt.want)
		}
	}
	if got := redact(nil, nil); len(got) != 0 {
		t.Errorf("no arguments: %q", got)
	}
}

// Long and strange arguments take time in proportion to their length, and end valid.
func FuzzRedact(f *testing.F) {
	f.Add("--password\x00x")
	f.Add("://a:b@c")
	f.Fuzz(func(t *testing.T, text string) {
		got := strings.Join(redact(strings.Split(text, "\x00"), nil), " ")
		if len(got) > len(text)+len(redacted)*(len(text)+1) {
			t.Errorf("%q becomes %q", text, got)
		}
		const secret = "hunter2"
		if all := strings.Join(redact([]string{"x", text, "--password", secret}, nil), " "); !strings.HasSuffix(all, redacted) {
			t.Errorf("%q", all)
		}
	})
}
