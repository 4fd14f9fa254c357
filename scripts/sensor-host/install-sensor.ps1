# SPDX-License-Identifier: MPL-2.0

<#
.SYNOPSIS
Installs a Microsoft Defender for Identity sensor of version 2.x with the deployment access
key that Vault Agent has written to a file.

.DESCRIPTION
Vault Agent runs this script each time it has written the file (see agent.hcl). The
installer gets the name of the file, so the key is on no command line. It runs as SYSTEM
or an administrator on a domain controller, so the script runs it only if it has a valid
Authenticode signature of Microsoft's. The file with the key is removed in any case; if
the installation fails, the agent's next read writes it again.

With VaultAddress, the script asks Vault just before it runs the installer whether the key
is still the current one, and reads it again if it is not. It asks once more if the
installer has failed, since the key may have been replaced meanwhile, and repeats the
installation with the new key. If Vault cannot say, because it is an older engine, the policy
does not allow it or Vault cannot be reached, the script goes on with the key that it has.

.PARAMETER AccessKeyFile
Full path of the file with the key. Its folder has the files "token", with the agent's
token, and "key-version.txt", with the version of the key.

.PARAMETER Installer
Full path of the installer from the package that mdi/deployment-package names.

.PARAMETER ProxyUrl
Proxy of the sensor, such as http://proxy.example.com:8080.

.PARAMETER VaultAddress
Vault's address, such as https://vault.example.com:8200. Windows has to trust its
certificate.

.OUTPUTS
Exit code 0: the sensor is installed, now or already. 3010: it is, and the host has
to be restarted. 1618: another installation is running; try again later. Anything
else is the installer's code, or 1 if it was not run.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $AccessKeyFile,
    [string] $Installer = (Join-Path $PSScriptRoot 'Azure ATP sensor Setup.exe'),
    [string] $ProxyUrl,
    [string] $VaultAddress
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$sensorService = 'AATPSensor'
$attempts = 3 # at most, of installing, and of reading the key again
$pause = 10   # seconds; on watch, the engine compares the key as often when it is read
$codesToKeep = 0, 1641, 3010, 1618 # of the installer: another key would change nothing

function Read-Vault([string] $Path) {
    # Older versions of Windows have to be told to use TLS 1.2.
    [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
    $tokenFile = Join-Path (Split-Path $AccessKeyFile) 'token'
    $headers = @{ 'X-Vault-Token' = [System.IO.File]::ReadAllText($tokenFile).Trim(); 'X-Vault-Request' = 'true' }
    # Without redirects, the token goes to no other host. The engine answers within 20 seconds.
    return (Invoke-RestMethod -Uri "$($VaultAddress.TrimEnd('/'))/v1/$Path" -Headers $headers -MaximumRedirection 0 -TimeoutSec 30).data
}

# Returns the version of the key in the file, 0 if it is not known.
function Get-HeldVersion {
    $file = Join-Path (Split-Path $AccessKeyFile) 'key-version.txt'
    if (-not (Test-Path -LiteralPath $file)) {
        return 0
    }
    return [int] [System.IO.File]::ReadAllText($file)
}

# Returns key_version and on_watch, or nothing if Vault cannot say.
function Get-CurrentVersion {
    if (-not $VaultAddress) {
        return $null
    }
    try {
        $current = Read-Vault 'mdi/key-version'
        return [pscustomobject] @{ Version = [int] $current.key_version; OnWatch = [bool] $current.on_watch }
    }
    catch {
        Write-Warning "Vault does not say which key is current, so the installation goes on: $($_.Exception.Message)"
        return $null
    }
}

# Puts the current key into the file, and returns its version. No command gets the key as an
# argument: the logging of PowerShell's modules writes down the arguments of commands, but
# not those of methods.
function Update-Key {
    for ($i = 1; ; $i++) {
        try {
            $answer = Read-Vault 'mdi/key/sensor-hosts'
            [System.IO.File]::WriteAllText($AccessKeyFile, $answer.deployment_access_key)
            return [int] $answer.key_version
        }
        catch {
            if ($i -ge $attempts) {
                throw "The key has been replaced, and Vault does not answer with another one: $($_.Exception.Message)"
            }
            Start-Sleep -Seconds $pause
        }
    }
}

function Test-MicrosoftSignature([string] $Path) {
    $signature = Get-AuthenticodeSignature -LiteralPath $Path
    if ($signature.Status -ne 'Valid') {
        Write-Error -ErrorAction Continue "The signature of $Path is not valid: $($signature.Status)."
        return $false
    }
    # Valid means that Windows trusts the chain; the name shows who has signed.
    $organization = $signature.SignerCertificate.Subject -split ',\s*' | Where-Object { $_ -like 'O=*' }
    if ($organization -ne 'O=Microsoft Corporation') {
        Write-Error -ErrorAction Continue "$Path is not signed by Microsoft Corporation."
        return $false
    }
    return $true
}

function Install-Sensor {
    # The file stays open, which prevents writing until the installer has ended: the file
    # that runs is the one that was verified.
    $lock = [System.IO.File]::Open($Installer, 'Open', 'Read', 'Read')
    try {
        if (-not (Test-MicrosoftSignature $Installer)) {
            return 1
        }
        $arguments = @('/quiet', 'NetFrameworkCommandLineArguments="/q"', "AccessKeyFile=`"$AccessKeyFile`"")
        if ($ProxyUrl) {
            $arguments += "ProxyUrl=`"$ProxyUrl`""
        }
        $process = Start-Process -FilePath $Installer -ArgumentList $arguments -Wait -PassThru
        return $process.ExitCode
    }
    finally {
        $lock.Dispose()
    }
}

# Runs the installer with the current key, and once more if the key was replaced meanwhile.
function Install-WithCurrentKey {
    $version = Get-HeldVersion
    for ($attempt = 1; ; $attempt++) {
        $current = Get-CurrentVersion
        if ($null -ne $current -and $current.Version -ne $version) {
            $version = Update-Key
        }
        $code = Install-Sensor
        if ($attempt -ge $attempts -or $code -in $codesToKeep) {
            return $code
        }
        $current = Get-CurrentVersion
        if ($null -ne $current -and $current.OnWatch) {
            # The key can have been replaced without the engine knowing it yet.
            $version = 0
            Start-Sleep -Seconds $pause
        }
        elseif ($null -eq $current -or $current.Version -eq $version) {
            return $code
        }
        Write-Warning "The installer has failed with code $code, and the key may have been replaced: trying again."
    }
}

function Resolve-ExitCode([int] $Code) {
    switch ($Code) {
        0 { Write-Output 'The sensor is installed.'; exit 0 }
        1641 { Write-Output 'The sensor is installed, and the host is being restarted.'; exit 0 }
        3010 { Write-Output 'The sensor is installed. Restart the host.'; exit 3010 }
        1618 { Write-Output 'Another installation is running. Try again later.'; exit 1618 }
        default { Write-Output "The installer has failed with code $Code. Its logs are in $env:TEMP."; exit $Code }
    }
}

$code = 1
try {
    if (Get-Service -Name $sensorService -ErrorAction SilentlyContinue) {
        $code = 0
    }
    elseif ((Get-Item -LiteralPath $AccessKeyFile).Length -eq 0) {
        Write-Error -ErrorAction Continue "$AccessKeyFile is empty."
    }
    else {
        $code = Install-WithCurrentKey
    }
}
catch {
    # An error message can have paths and an address in it, but never the key: no command
    # of this script reads the file, or gets the key.
    Write-Error -ErrorAction Continue $_.Exception.Message
}
finally {
    Remove-Item -LiteralPath $AccessKeyFile -Force -ErrorAction SilentlyContinue
}
Resolve-ExitCode $code
