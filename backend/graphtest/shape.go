// SPDX-License-Identifier: MPL-2.0

package graphtest

// Shape is a form of Graph's answers. Microsoft's examples, schema and SDKs disagree about
// the wrapper and about the name of the key's field. Which of them a tenant gets is not
// documented, so clients must accept all four.
type Shape string

// The four shapes: the fields at the root or below "value", and the key named
// with or without the prefix "sensor".
const (
	// ShapeValueSensor is the example in the call's documentation.
	ShapeValueSensor Shape = "value-sensorDeploymentAccessKey"
	ShapeValue       Shape = "value-deploymentAccessKey"
	ShapeRootSensor  Shape = "root-sensorDeploymentAccessKey"
	// ShapeRoot is the form in the schema and in Microsoft's SDKs.
	ShapeRoot Shape = "root-deploymentAccessKey"
)

// The names of the key's field.
const (
	plainKeyField  = "deploymentAccessKey"
	sensorKeyField = "sensorDeploymentAccessKey"
)

// Shapes lists all shapes.
func Shapes() []Shape {
	return []Shape{ShapeValueSensor, ShapeValue, ShapeRootSensor, ShapeRoot}
}

// keyField returns this shape's name for the key.
func (s Shape) keyField() string {
	if s == ShapeValueSensor || s == ShapeRootSensor {
		return sensorKeyField
	}
	return plainKeyField
}

// wrap puts the fields of a complex type where this shape has them, with the annotation
// that this shape adds. root is Graph's root, with the version.
func (s Shape) wrap(root, typeName string, fields map[string]any) map[string]any {
	if s == ShapeValueSensor || s == ShapeValue {
		fields["@odata.type"] = "microsoft.graph.security." + typeName
		return map[string]any{"value": fields}
	}
	fields["@odata.context"] = root + "/$metadata#microsoft.graph.security." + typeName
	return fields
}

// contradict adds a second, different key to the root of an answer.
func contradict(body map[string]any, key string) {
	field := plainKeyField
	if _, exists := body[field]; exists {
		field = sensorKeyField
	}
	body[field] = key
}
