// Holds events and answers, a line of JSON each, to the types of PagerDuty's own client: names what is none of them.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"

	"github.com/PagerDuty/go-pagerduty"
)

type exchange struct {
	Event  json.RawMessage `json:"event"`
	Answer json.RawMessage `json:"answer"`
}

// strict reads into a type, and writes it again: nothing may be unknown to the type, nor get lost in it.
func strict(raw json.RawMessage, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	again, err := json.Marshal(into)
	if err != nil {
		return err
	}
	var before, after any
	if err := json.Unmarshal(raw, &before); err != nil {
		return err
	}
	if err := json.Unmarshal(again, &after); err != nil {
		return err
	}
	if !reflect.DeepEqual(before, after) {
		return fmt.Errorf("becomes %s", again)
	}
	return nil
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for number := 0; lines.Scan(); number++ {
		var told exchange
		if err := json.Unmarshal(lines.Bytes(), &told); err != nil {
			panic(err)
		}
		if err := strict(told.Event, &pagerduty.V2Event{}); err != nil {
			fmt.Printf("event %d: %v\n", number, err)
		}
		if err := strict(told.Answer, &pagerduty.V2EventResponse{}); err != nil {
			fmt.Printf("answer %d: %v\n", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		panic(err)
	}
}
