// Package cgi is RFC 3875, the Common Gateway Interface 1.1, without the
// processes: what a request becomes on its way to an application and what the
// application's answer means on its way back. A CGI script, a FastCGI
// application and a WSGI worker are given the same variables and answer in the
// same form, so all of them go through here.
//
// On the way in, CheckRequest refuses what no application should have to judge,
// CleanPath or a Resolver says which part of the path names the script,
// AppendParams makes the meta-variables, and Environ and QueryArgs turn them
// into what exec takes. On the way out, ParseHead or ParseNPHHead reads the
// head of the answer.
//
// Nothing here opens a connection or starts a process, and only a Resolver
// looks at the disk.
package cgi
