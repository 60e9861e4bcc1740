metadata description = 'The namespace and the queue between the API and the operator.'

@description('Region of the namespace.')
param location string

@description('Name of the namespace, unique in all of Azure.')
param name string

@description('Name of the queue.')
param queueName string

@description('For how long a message is the receiver\'s alone, as an ISO 8601 duration; at most five minutes.')
param lockDuration string

@description('After how many deliveries a message goes to the dead letters.')
@minValue(1)
param maxDeliveryCount int

@description('For how long a second message of the same id is dropped, as an ISO 8601 duration. The relay may send a message twice.')
param duplicateDetectionWindow string

@description('For how long a message waits before it goes to the dead letters, as an ISO 8601 duration.')
param timeToLive string

@description('Principal id of the operator, which sends and receives.')
param operatorPrincipalId string

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/integration
var dataSender = '69a216fc-b8fb-44d8-bc22-1f3c2cd27a39'
var dataReceiver = '4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0'

resource namespace 'Microsoft.ServiceBus/namespaces@2024-01-01' = {
  name: name
  location: location
  sku: {
    // Basic has no duplicate detection
    name: 'Standard'
    tier: 'Standard'
  }
  properties: {
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
  }
}

resource queue 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' = {
  name: queueName
  parent: namespace
  properties: {
    requiresDuplicateDetection: true
    duplicateDetectionHistoryTimeWindow: duplicateDetectionWindow
    lockDuration: lockDuration
    maxDeliveryCount: maxDeliveryCount
    defaultMessageTimeToLive: timeToLive
    deadLetteringOnMessageExpiration: true
    enablePartitioning: false
    requiresSession: false
  }
}

resource operatorSends 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(queue.id, operatorPrincipalId, dataSender)
  scope: queue
  properties: {
    principalId: operatorPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', dataSender)
  }
}

resource operatorReceives 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(queue.id, operatorPrincipalId, dataReceiver)
  scope: queue
  properties: {
    principalId: operatorPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', dataReceiver)
  }
}

@description('Host name of the namespace.')
output hostName string = split(replace(namespace.properties.serviceBusEndpoint, 'https://', ''), ':')[0]

@description('Name of the queue.')
output queueName string = queue.name
